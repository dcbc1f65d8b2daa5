"""What the front door does with clients that are slow, oversized, ambiguous or deaf, over raw connections."""

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from servers.gateway.address import bind
from servers.gateway.response import Answer
from tests.services.front_door import Door, open_door
from tests.services.polling import wait_until
from tests.services.tiny_engine import TinyEngine

CHAT = "/v1/chat/completions"
LIMITS = {"header_timeout_s": 0.3, "body_timeout_s": 0.3, "write_timeout_s": 0.3, "max_body_bytes": 100_000}
BODY = b'{"model": "one"}'


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """One model behind short limits."""
    with open_door(tmp_path_factory.mktemp("door"), TinyEngine("one"), limits=LIMITS) as door:
        yield door


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


def test_a_connection_that_says_nothing_is_closed(door: Door) -> None:
    with Wire(door.port) as wire:
        assert wire.rest() == b""


def test_line_ends_alone_do_not_keep_a_connection_open(door: Door) -> None:
    with Wire(door.port) as wire:
        wire.sendall(b"\r\n\r\n")
        assert wire.rest() == b""


def test_a_head_that_drips_in_is_a_408_however_often_something_comes(door: Door) -> None:
    with Wire(door.port) as wire:
        begin = time.monotonic()
        wire.sendall(f"POST {CHAT} HTTP/1.1\r\n".encode())
        for number in range(4):
            time.sleep(0.05)
            wire.sendall(f"X-{number}: 1\r\n".encode())
        assert "limits.header_timeout_s" in wire.refused(408)
        assert 0.25 < time.monotonic() - begin < 1


def test_the_head_of_a_later_request_has_its_time_too(door: Door) -> None:
    with Wire(door.port) as wire:
        wire.sendall(post())
        assert wire.answer()[0] == 200
        wire.sendall(b"POST ")
        wire.refused(408)


def test_a_connection_at_rest_outlives_the_header_timer(door: Door) -> None:
    with Wire(door.port) as wire:
        for _ in range(3):
            wire.sendall(post())
            assert wire.answer()[0] == 200
            time.sleep(0.35)


def test_a_body_that_stalls_is_a_408(door: Door) -> None:
    with Wire(door.port) as wire:
        wire.sendall(post("Host: x", "Content-Length: 100"))
        assert "limits.body_timeout_s" in wire.refused(408)


def test_a_slow_body_that_keeps_coming_is_served(door: Door) -> None:
    with Wire(door.port) as wire:
        whole = post(body=json.dumps({"model": "one", "note": "x" * 800}).encode())
        wire.sendall(whole[:-800])
        for begin in range(len(whole) - 800, len(whole), 200):
            time.sleep(0.15)
            wire.sendall(whole[begin : begin + 200])
        assert wire.answer()[0] == 200


def test_a_body_that_drips_in_is_a_408_however_often_something_comes(door: Door) -> None:
    with Wire(door.port) as wire:
        wire.sendall(post("Host: x", "Content-Length: 1000", body=b""))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(20):
                wire.sendall(b"x")
                time.sleep(0.05)
        assert "limits.body_timeout_s" in wire.refused(408)


def test_a_body_that_stalls_after_its_answer_closes_the_connection(door: Door) -> None:
    with Wire(door.port) as wire:
        wire.sendall(post("Host: x", "Content-Length: 100", path="/nowhere"))
        assert wire.answer()[0] == 404
        assert wire.rest() == b""


def test_a_body_that_comes_after_its_answer_leaves_the_connection_usable(door: Door) -> None:
    with Wire(door.port) as wire:
        wire.sendall(post(path="/nowhere", body=BODY)[: -len(BODY)])
        assert wire.answer()[0] == 404
        wire.sendall(BODY + post())
        assert wire.answer()[0] == 200
        time.sleep(0.4)
        wire.sendall(post())
        assert wire.answer()[0] == 200


def test_a_body_without_end_is_not_read_for_ever_after_its_answer(door: Door) -> None:
    with Wire(door.port) as wire:
        wire.sendall(post("Host: x", "Transfer-Encoding: chunked", body=b"", path="/nowhere"))
        assert wire.answer()[0] == 404
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            wire.sendall((b"2710\r\n" + b"x" * 10_000 + b"\r\n") * 2000)


def test_a_large_header_just_under_the_limit_passes(door: Door) -> None:
    with Wire(door.port) as wire:
        wire.sendall(post("Host: x", f"Content-Length: {len(BODY)}", "X-Large: " + "x" * 32_000))
        assert wire.answer()[0] == 200


@pytest.mark.parametrize(
    "head",
    [
        post("Host: x", "X-Large: " + "x" * 32_768, body=b""),
        post("Host: x", *[f"X-{number}: {'x' * 1000}" for number in range(40)], body=b""),
        post("Host: x", path="/" + "x" * 32_768, body=b""),
        post("Host: x", body=b"")[:-2] + b"X-Endless: " + b"x" * 400_000,
        b"POST /" + b"x" * 400_000,
        post("Host: x", *[f"X-{number}: 1" for number in range(100)], body=b""),
    ],
    ids=["one field", "all fields", "the path", "a field without end", "a path without end", "101 fields"],
)
def test_a_head_over_the_limits_is_a_431(door: Door, head: bytes) -> None:
    with Wire(door.port) as wire:
        wire.sendall(head)
        assert "limits.max_header_bytes" in wire.refused(431)


@pytest.mark.parametrize("end", [b"0\r\nX-Endless: ", b"1;"], ids=["trailer", "chunk extension"])
def test_what_follows_the_head_is_not_read_without_end_either(door: Door, end: bytes) -> None:
    with Wire(door.port) as wire:
        wire.sendall(post("Host: x", "Transfer-Encoding: chunked", body=end))
        wire.sendall(b"x" * 400_000)
        wire.refused(431)


def test_a_trailer_is_no_header(door: Door) -> None:
    trailer = b"0\r\nX-Request-Id: from-trailer\r\n\r\n"
    with Wire(door.port) as wire:
        wire.sendall(post("Host: x", "Transfer-Encoding: chunked", body=b"10\r\n" + BODY + b"\r\n" + trailer))
        status, headers, _ = wire.answer()
        assert (status, headers["x-request-id"] == "from-trailer") == (200, False)


@pytest.mark.parametrize(
    "request_",
    [
        post(f"Content-Length: {len(BODY)}"),
        post("Host: x", "Host: x", f"Content-Length: {len(BODY)}"),
        post("Host: x", f"Content-Length: {len(BODY)}", "Transfer-Encoding: chunked"),
        post("Host: x", "Transfer-Encoding: chunked", f"Content-Length: {len(BODY)}"),
        post("Host: x", "Content-Length: 16", "Content-Length: 17"),
        post("Host: x", "Content-Length: 16, 17"),
        post("Host: x", "Content-Length: +16"),
        post("Host: x", "Transfer-Encoding: chunked", body=b"0\r\n\r\n", version="1.0"),
        post("Host: x", "Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"),
        post("Host: x", "Transfer-Encoding : chunked", body=b"0\r\n\r\n"),
        post("Host: x", "Transfer-Encoding: chunked", body=b"zz\r\n"),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_what_can_be_read_in_two_ways_is_a_400(door: Door, request_: bytes) -> None:
    with Wire(door.port) as wire:
        wire.sendall(request_)
        wire.refused(400)


def test_http_1_0_needs_no_host(door: Door) -> None:
    with Wire(door.port) as wire:
        wire.sendall(post(f"Content-Length: {len(BODY)}", version="1.0"))
        assert wire.answer()[0] == 200


def test_a_tunnel_is_refused(door: Door) -> None:
    with Wire(door.port) as wire:
        wire.sendall(b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n")
        wire.refused(405)


def test_a_request_sent_before_the_last_is_answered_ends_both(door: Door) -> None:
    with Wire(door.port) as wire:
        wire.sendall(post() + post())
        assert "pipelining" in wire.refused(400)
    note = left(door)
    with Wire(door.port) as wire:
        wire.sendall(stream(1000, 0.01))
        assert b"data: 0" in wire.recv(65536) + wire.recv(65536)
        wire.sendall(post())
        assert b"HTTP/1.1" not in wire.rest(), "the second request was answered"
        wait_until(note.exists, 2)
        wait_until(lambda: door.app.in_flight == 0, 2)


def test_a_request_sent_on_the_last_byte_of_an_answer_is_served(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    finish = Answer.finish

    async def finish_late(answer: Answer, chunk: bytes = b"") -> None:
        await answer.write(chunk)
        await asyncio.sleep(0.1)
        await finish(answer)

    monkeypatch.setattr(Answer, "finish", finish_late)
    with Wire(door.port) as wire:
        for _ in range(3):
            wire.sendall(post(path="/nowhere"))
            assert wire.answer()[0] == 404


@pytest.mark.parametrize(
    "fields",
    [
        ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"),
        ("Connection: upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"),
    ],
    ids=["h2c", "websocket"],
)
def test_an_upgrade_is_ignored_and_the_body_stays_a_body(door: Door, fields: tuple[str, ...]) -> None:
    body = b'{"model": "one", "note": "GET /health HTTP/1.1"}'
    request = post("Host: x", *fields, f"Content-Length: {len(body)}", body=body)
    for cut in (len(request), len(request) - 20, 30):
        with Wire(door.port) as wire:
            wire.sendall(request[:cut])
            time.sleep(0.02)
            wire.sendall(request[cut:])
            status, _, answer = wire.answer()
            assert (status, json.loads(answer)["bytes"]) == (200, len(body))
            wire.sendall(post())
            assert wire.answer()[0] == 200


def test_requests_on_one_connection_one_after_the_other_are_served(door: Door) -> None:
    with Wire(door.port) as wire:
        for _ in range(20):
            wire.sendall(post())
            assert wire.answer()[0] == 200


def test_a_chunked_upload_is_served(door: Door) -> None:
    pieces = (b"x" * 1000 for _ in range(50))
    assert door.client.post("/predict/one", content=pieces).json()["bytes"] == 50_000


def test_a_client_that_expects_a_continue_gets_it(door: Door) -> None:
    head = post("Host: x", f"Content-Length: {len(BODY)}", "Expect: 100-continue", body=b"")
    with Wire(door.port) as wire:
        wire.sendall(head)
        assert wire.answer()[0] == 100
        wire.sendall(BODY)
        status, headers, _ = wire.answer()
        assert (status, headers["connection"]) == (200, "close")


def test_an_expected_continue_that_is_not_given_ends_the_connection(door: Door) -> None:
    with Wire(door.port) as wire:
        wire.sendall(post("Host: x", "Content-Length: 16", "Expect: 100-continue", body=b"", path="/nowhere"))
        assert wire.answer()[0] == 404
        assert wire.rest() == b"", "what comes next could be the body or a request"


def test_a_long_stream_reaches_a_client_that_reads(door: Door) -> None:
    with Wire(door.port) as wire:
        wire.sendall(stream(60, 0.01))
        received = b""
        while not received.endswith(b"0\r\n\r\n"):
            received += wire.recv(65536)
        assert received.count(b"data: ") == 61


@pytest.fixture
def narrow_door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Door]:
    """A door for three connections, whose kernel keeps little of what a client does not read."""

    def narrow(host: str, port: int) -> socket.socket:
        listener = bind(host, port)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        return listener

    monkeypatch.setattr("tests.services.front_door.bind", narrow)
    with open_door(tmp_path, TinyEngine("one"), limits={"write_timeout_s": 0.3, "max_connections": 3}) as door:
        yield door


def test_a_client_that_stops_reading_is_cut_off_and_its_model_freed(narrow_door: Door) -> None:
    note = left(narrow_door)
    with Wire(narrow_door.port, receive_bytes=4096) as wire:
        wire.sendall(stream(1_000_000))
        wait_until(note.exists, 2)
        wait_until(lambda: narrow_door.app.in_flight == 0, 2)
        assert b"[DONE]" not in wire.rest()


def test_an_answer_left_unread_does_not_keep_a_closing_connection(narrow_door: Door) -> None:
    body = json.dumps({"model": "one", "fail": 400, "with": {"error": {"message": "x" * 50_000}}}).encode()
    with Wire(narrow_door.port, receive_bytes=4096) as wire:
        wire.sendall(post("Host: x", "Connection: close", f"Content-Length: {len(body)}", body=body))
        time.sleep(0.8)
        assert len(wire.rest()) < 50_000


def test_connections_beyond_the_limit_take_the_place_of_one_at_rest(narrow_door: Door) -> None:
    wires = [Wire(narrow_door.port) for _ in range(3)]
    for wire in wires:
        wire.sendall(post())
        assert wire.answer()[0] == 200
    with Wire(narrow_door.port) as fourth:
        fourth.sendall(post())
        assert fourth.answer()[0] == 200
    assert wires[0].rest() == b"", "it had been at rest for longest"
    for wire in wires:
        wire.close()


def test_connections_beyond_the_limit_are_refused_while_all_others_have_a_request(narrow_door: Door) -> None:
    wires = [Wire(narrow_door.port) for _ in range(3)]
    for wire in wires:
        wire.sendall(stream(1000, 0.01))
    wait_until(lambda: narrow_door.app.in_flight == 3, 2)
    with Wire(narrow_door.port) as fourth:
        fourth.sendall(post())
        status, headers, body = fourth.answer()
        assert (status, headers["retry-after"], headers["connection"]) == (503, "1", "close")
        assert json.loads(body)["error"]["code"] == "too_many_connections"
    for wire in wires:
        wire.close()

    def served() -> bool:
        with Wire(narrow_door.port) as wire:
            wire.sendall(post())
            return wire.answer()[0] == 200

    wait_until(served, 2)
