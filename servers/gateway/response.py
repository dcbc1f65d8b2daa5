"""An answer on its way to the client: begun, written, finished, or broken off.

It knows how far it has got, and so how a failure can still be told: as an error of its own before it has begun, as an
error event within an event stream, and otherwise by closing the connection, so that no half answer passes for a whole.
"""

import time
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from servers.errors import ApiError
from servers.gateway.request import Send

Headers = Iterable[tuple[bytes, bytes]]


class Answer:
    """Wraps ASGI's `send` for one request; every answer carries the request id.

    `status` is None until it has begun. Of an event stream, `events` counts the events, `first_event_s` is when the
    first came (`time.monotonic()`), and `on_gap` is told the seconds from each chunk to the next.
    """

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._request_id = request_id.encode()
        self.status: int | None = None
        self.events = 0
        self.first_event_s: float | None = None
        self.on_gap: Callable[[float], None] | None = None
        self._chunk_s = 0.0
        self._event_stream = False
        self._last = b""
        self._before = b""

    async def start(self, status: int, headers: Headers) -> None:
        """Send status and headers."""
        sent = [*headers, (b"x-request-id", self._request_id)]
        self.status = status
        self._event_stream = any(
            name.lower() == b"content-type" and value.startswith(b"text/event-stream") for name, value in sent
        )
        await self._send({"type": "http.response.start", "status": status, "headers": sent})

    async def write(self, chunk: bytes) -> None:
        """Send a piece of the body as it is."""
        self._before, self._last = self._last, chunk
        if self._event_stream:
            self._note(chunk)
        await self._send({"type": "http.response.body", "body": chunk, "more_body": True})

    def _note(self, chunk: bytes) -> None:
        now_s = time.monotonic()
        if self.first_event_s is None:
            self.first_event_s = now_s
        elif self.on_gap is not None:
            self.on_gap(now_s - self._chunk_s)
        self._chunk_s = now_s
        self.events += chunk.count(b"\n\n")

    async def finish(self, chunk: bytes = b"") -> None:
        """Send the last piece of the body."""
        await self._send({"type": "http.response.body", "body": chunk})

    @property
    def tail(self) -> bytes:
        """The last bytes of what was written so far."""
        return (self._before + self._last)[-4096:]

    async def whole(self, status: int, body: bytes, headers: Headers = ()) -> None:
        """Send a complete JSON answer."""
        length = str(len(body)).encode()
        await self.start(status, [*headers, (b"content-type", b"application/json"), (b"content-length", length)])
        await self.finish(body)

    async def document(self, document: Any, status: int = 200) -> None:
        """Send a value as JSON."""
        await self.whole(status, msgspec.json.encode(document))

    async def fail(self, error: ApiError) -> None:
        """Tell the error in whatever way is still possible."""
        if self.status is None:
            headers = [(name.encode(), value.encode()) for name, value in error.headers.items()]
            await self.whole(error.status, error.body(), headers)
        elif self._event_stream:
            await self.finish(b"data: " + error.body() + b"\n\n")
