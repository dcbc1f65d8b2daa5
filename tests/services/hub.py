"""A model hub small enough for a test: repository listings, downloads behind a redirect, ranges, gates, faults.

It exists so that huggingface-hub itself is exercised over HTTP. It speaks only what a pull needs.
"""

import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import unquote, urlsplit

LARGE_BYTES = 1000  # files from this size on are LFS files: they have a SHA-256 and are behind a redirect


@dataclass
class Repository:
    """A repository: one commit, its files, and what is odd about it."""

    files: dict[str, bytes]
    commit: str = "c" * 40
    branch: str = "main"
    gated: bool = False
    announced_sizes: dict[str, int] = field(default_factory=dict)
    announced_sha256: dict[str, str] = field(default_factory=dict)

    def siblings(self) -> list[dict[str, object]]:
        return [self._sibling(name, content) for name, content in self.files.items()]

    def _sibling(self, name: str, content: bytes) -> dict[str, object]:
        size = self.announced_sizes.get(name, len(content))
        sha256 = self.announced_sha256.get(name, hashlib.sha256(content).hexdigest())
        lfs = {"size": size, "sha256": sha256, "pointerSize": 134} if size >= LARGE_BYTES else None
        return {"rfilename": name, "size": size, "blobId": "0" * 40, "lfs": lfs}


@dataclass(frozen=True)
class Seen:
    """A request that the hub got."""

    path: str
    range: str | None
    authorization: str | None


class Hub:
    """The hub, serving on a free port of the loopback interface while it is entered.

    The next large download breaks off after `cut_after_bytes`, or stands still after `stall_after_bytes` until the hub
    closes or `go_on` is set; both happen once. Requests whose path begins with `status_at` are answered with that
    status and nothing else, those with `silent_at` never, those with `cut_at` with half an answer.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.seen: list[Seen] = []
        self.cut_after_bytes: int | None = None
        self.stall_after_bytes: int | None = None
        self.go_on = threading.Event()
        self.status_at: tuple[str, int] | None = None
        self.silent_at: str | None = None
        self.cut_at: str | None = None
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def downloads(self, name: str) -> list[Seen]:
        """The requests for the content of the large file `name`."""
        return [seen for seen in self.seen if seen.path.startswith("/cdn/") and seen.path.endswith(name)]

    def __enter__(self) -> "Hub":
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.go_on.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.seen.append(Seen(path, self.headers["Range"], self.headers["Authorization"]))
            if hub.silent_at and path.startswith(hub.silent_at):
                self.close_connection = True
                hub.go_on.wait()
            elif hub.status_at and path.startswith(hub.status_at[0]):
                self._send(hub.status_at[1], b"", {})
            elif info := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
                self._send_info(info[1], info[2] or "main")
            elif file := re.fullmatch(r"/(?P<cdn>cdn/)?([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
                self._send_file(file[2], file[3], redirected=bool(file["cdn"]))
            else:
                self._fail(404, "EntryNotFound")

        def _send_info(self, name: str, revision: str) -> None:
            repository = hub.repositories.get(name)
            if repository is None:
                self._fail(401, "RepoNotFound")  # the real one does not tell missing from private either
            elif revision not in (repository.branch, repository.commit):
                self._fail(404, "RevisionNotFound")
            else:
                answer = {"id": name, "sha": repository.commit, "siblings": repository.siblings()}
                self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

        def _send_file(self, name: str, file: str, redirected: bool) -> None:
            repository = hub.repositories[name]
            content = repository.files[file]
            if repository.gated and not redirected and not self.headers["Authorization"]:
                self._fail(401, "GatedRepo")
            elif len(content) >= LARGE_BYTES and not redirected:
                self._send(302, b"", {"Location": f"/cdn{self.path}", "X-Linked-Size": str(len(content))})
            elif requested := re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or ""):
                begin = int(requested[1])
                span = f"bytes {begin}-{len(content) - 1}/{len(content)}"
                self._send(206, content[begin:], {"Content-Range": span})
            else:
                self._send(200, content, {"Accept-Ranges": "bytes"})

        def _fail(self, status: int, code: str) -> None:
            self._send(status, b"", {"X-Error-Code": code})

        def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            if hub.cut_at and self.path.startswith(hub.cut_at):
                self.close_connection = True
                body = body[: len(body) // 2]
            if len(body) >= LARGE_BYTES and "/cdn/" in self.path:
                body = self._spoiled(body)
            self.wfile.write(body)

        def _spoiled(self, body: bytes) -> bytes:
            cut, hub.cut_after_bytes = hub.cut_after_bytes, None
            stall, hub.stall_after_bytes = hub.stall_after_bytes, None
            if cut is not None:
                self.close_connection = True
                return body[:cut]
            if stall is not None:
                self.close_connection = True
                self.wfile.write(body[:stall])
                self.wfile.flush()
                hub.go_on.wait()
                return body[stall:]
            return body

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's name
            return

    return Handler
