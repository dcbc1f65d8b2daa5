"""Raw connections to the front door, and requests as bytes."""

import json
import socket
from pathlib import Path

from tests.services.front_door import Door

CHAT = "/v1/chat/completions"


BODY = b'{"model": "one"}'


class Wire(socket.socket):
    """A raw connection to the front door; what a server does to it must be done within two seconds."""

    def __init__(self, port: int, receive_bytes: int | None = None) -> None:
        super().__init__()
        self.settimeout(2)
        if receive_bytes:
            self.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.connect(("127.0.0.1", port))

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of one answer; what comes after it stays unread."""
        first, *lines = self.up_to(b"\r\n\r\n").decode().splitlines()
        headers = dict(line.split(": ", 1) for line in lines if line)
        body = b""
        if "transfer-encoding" in headers:
            body = self.up_to(b"\r\n0\r\n\r\n").split(b"\r\n")[1]  # the tiny server sends one chunk
        while len(body) < int(headers.get("content-length", 0)):
            body += self.recv(1)
        return int(first.split()[1]), headers, body

    def up_to(self, mark: bytes) -> bytes:
        """Everything up to and including this mark."""
        read = b""
        while not read.endswith(mark):
            piece = self.recv(1)
            assert piece, f"closed after {read!r}"
            read += piece
        return read

    def refused(self, status: int) -> str:
        """The message of a refusal in OpenAI's shape, after which the server closes the connection."""
        given, headers, body = self.answer()
        assert (given, headers["connection"]) == (status, "close"), body
        error = json.loads(body)["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert self.rest() == b""
        return str(error["message"])

    def rest(self) -> bytes:
        """Everything until the server closes; a reset counts as closing."""
        pieces = []
        try:
            while piece := self.recv(65536):
                pieces.append(piece)
        except ConnectionResetError:
            pass
        return b"".join(pieces)


def post(*fields: str, body: bytes = BODY, version: str = "1.1", path: str = CHAT) -> bytes:
    """A request; without fields, an ordinary one."""
    chosen = fields or ("Host: x", f"Content-Length: {len(body)}")
    return "\r\n".join([f"POST {path} HTTP/{version}", *chosen, "", ""]).encode() + body


def stream(events: int, wait_s: float = 0) -> bytes:
    """A request for a stream of events."""
    return post(body=json.dumps({"model": "one", "events": events, "wait_s": wait_s}).encode())


def left(door: Door) -> Path:
    """The file that the model writes when a client leaves its stream."""
    note = door.supervisor.models["one"].choose().socket.parent / "left"
    note.unlink(missing_ok=True)
    return note
