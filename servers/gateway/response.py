"""A response on its way to the client.

It knows how far it has got, and so how an error can still be reported: as a response of its own before the first byte,
as an error event in an event stream, and else by a connection that breaks, so that half an answer never looks complete.
"""

import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import msgspec

from servers.errors import ApiError
from servers.gateway.cycle import Cycle
from servers.gateway.error_shapes import OPENAI, ErrorShape
from servers.gateway.request import Send

Headers = Iterable[tuple[bytes, bytes]]


class Source(Protocol):
    """What a body comes from; `answered_at_s` is when a piece of any body last came from it (`time.monotonic()`)."""

    answered_at_s: float


class Response:
    """Wraps ASGI's `send` and the cycle for one request; every response carries the request id.

    `errors` is the shape of errors. `status` is None until the response has begun. For an event stream,
    `events` counts the events, `first_event_s` is when the first came (`time.monotonic()`), and `on_gap` is called with
    the seconds between one chunk and the next. `source` is told of each piece of the body that is written. `notes` are
    headers that go out beside those of the answer.
    """

    def __init__(self, send: Send, cycle: Cycle, request_id: str, errors: ErrorShape = OPENAI) -> None:
        self.errors = errors
        self._send = send
        self._cycle = cycle
        self._request_id = request_id.encode()
        self.status: int | None = None
        self.events = 0
        self.first_event_s: float | None = None
        self.on_gap: Callable[[float], None] | None = None
        self.source: Source | None = None
        self.notes: list[tuple[bytes, bytes]] = []
        self._chunk_s = 0.0
        self._is_event_stream = False
        self._last_chunk = b""
        self._previous_chunk = b""

    async def start(self, status: int, headers: Headers, whole: bytes | None = None) -> None:
        """Send status and headers, and with them the body if it is `whole`: then that is all."""
        fields = [*headers, (b"x-request-id", self._request_id), *self.notes]
        self.status = status
        types = [value for name, value in fields if name.lower() == b"content-type"]
        self._is_event_stream = bool(types) and types[0].startswith(b"text/event-stream")
        if whole:
            self._note(whole)
        await self._send({"type": "http.response.start", "status": status, "headers": fields, "whole": whole})

    def write(self, chunk: bytes) -> bool:
        """Send a piece of the body as it is; False when `drain` must come before the next one."""
        self._note(chunk)
        return self._cycle.write(chunk)

    async def drain(self) -> None:
        """Wait until the client reads."""
        await self._cycle.drain()

    async def finish(self, chunk: bytes = b"") -> None:
        """Send the last piece of the body."""
        if chunk:
            self._note(chunk)
        await self._send({"type": "http.response.body", "body": chunk})

    @property
    def tail(self) -> bytes:
        """The last bytes that were written so far."""
        return (self._previous_chunk + self._last_chunk)[-4096:]

    async def send_body(self, status: int, body: bytes, headers: Headers = ()) -> None:
        """Send a complete response whose body is JSON already."""
        length = str(len(body)).encode()
        fields = [*headers, (b"content-type", b"application/json"), (b"content-length", length)]
        await self.start(status, fields, body)

    async def send_json(self, value: Any, status: int = 200) -> None:
        """Send a complete response with a value as JSON."""
        await self.send_body(status, msgspec.json.encode(value))

    async def send_error(self, error: ApiError, headers: Headers = ()) -> None:
        """Report the error in whatever way is still possible; `headers` are sent beside the error's own."""
        if self.status is None:
            fields = [*headers, *((name.encode(), value.encode()) for name, value in error.headers.items())]
            await self.send_body(error.status, self.errors.body(error, self._request_id.decode()), fields)
        elif self._is_event_stream:
            event = self.errors.event(error, self._request_id.decode(), self.tail)
            is_at_boundary = not self._last_chunk or self._last_chunk.endswith(b"\n\n")
            await self.finish(event if is_at_boundary else b"\n\n" + event)  # else half an event would swallow it

    def _note(self, chunk: bytes) -> None:
        now_s = time.monotonic()
        if self.source is not None:
            self.source.answered_at_s = now_s
        self._previous_chunk, self._last_chunk = self._last_chunk, chunk
        if self._is_event_stream:
            if self.first_event_s is None:
                self.first_event_s = now_s
            elif self.on_gap is not None:
                self.on_gap(now_s - self._chunk_s)
            self._chunk_s = now_s
            # Most chunks are one event of one line; to count takes four times as long as to see that.
            is_one = chunk.find(b"\n") == len(chunk) - 2 >= 0 and chunk.endswith(b"\n")
            self.events += 1 if is_one else chunk.count(b"\n\n")
