"""One request on its way through a worker: its ticket, and the two ways in which it is answered.

Most are answered by the thread that ran the API (`DirectReply`). What FastAPI or a spec answers runs as an ASGI
application on the loop (`Exchange`): refusals of its parsing, and everything of a spec.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, MutableMapping, Sequence
from contextvars import ContextVar
from typing import Any

from starlette.responses import Response

from servers.engines.litserve.host import wire
from servers.engines.litserve.host.encode import Encode
from servers.engines.litserve.host.failure import Failure
from servers.engines.litserve.host.outlet import Outlet
from servers.engines.litserve.host.work import Work

_log = logging.getLogger("litport.worker")

JSON_HEADERS = (("content-type", "application/json"),)
_NOT_SENT = frozenset({"content-length", "transfer-encoding", "connection"})

current: ContextVar["Exchange | None"] = ContextVar("exchange", default=None)
"""The exchange whose ASGI application runs."""


class Ticket:
    """A request as the wire knows it. `window` holds its answer back while the client is slow."""

    def __init__(self, request: wire.Request, outlet: Outlet, close: Callable[[int], object]) -> None:
        self.request = request
        self.outlet = outlet
        self.works: list[Work] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.is_cancelled = False
        self.window = Window()
        self.is_over = False
        self._close = close

    def reply(
        self,
        kind: wire.Kind,
        body: bytes = b"",
        status: int = 200,
        headers: Sequence[tuple[str, str]] = (),
        failure: str | None = None,
    ) -> tuple[wire.Reply, bytes]:
        """The reply, and the bytes of its body."""
        is_last = kind in (wire.Kind.WHOLE, wire.Kind.END)
        times, batch_size = None, 0
        if is_last:
            self.is_over = True
            self._close(self.request.id)
            if self.works:
                times, batch_size = self.works[0].times, self.works[0].batch_size
        return wire.Reply(self.request.id, kind, len(body), status, headers, times, batch_size, failure), body

    def cancel(self) -> None:
        """Nobody waits for the answer any more. The front door still hears when the work is left."""
        self.is_cancelled = True
        for work in self.works:
            work.is_cancelled = True
        self.window.close()
        for task in self.tasks:
            task.cancel()


class Window:
    """How many bytes of an answer may still be sent before the front door has passed some on."""

    def __init__(self) -> None:
        self._free = wire.WINDOW_BYTES
        self._is_closed = False
        self._changed = threading.Condition()
        self._waiter: asyncio.Future[None] | None = None

    @property
    def has_room(self) -> bool:
        """Whether `take` would not block."""
        return self._free > 0

    def take(self, size: int) -> None:
        """Block while there is no room, and take it."""
        if self._free <= 0:
            with self._changed:
                self._changed.wait_for(lambda: self._free > 0 or self._is_closed)
        self._free -= size

    async def take_on_loop(self, size: int) -> None:
        """The same on the loop."""
        while self._free <= 0 and not self._is_closed:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        self._free -= size

    def grant(self, size: int) -> None:
        """There is room again; called on the loop."""
        with self._changed:
            self._free += size
            self._changed.notify_all()
        self._wake()

    def close(self) -> None:
        """Nothing waits for room any more; called on the loop."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class DirectReply:
    """Answers from the thread that ran the API."""

    def __init__(self, ticket: Ticket, encode: Encode, loop: asyncio.AbstractEventLoop) -> None:
        self._ticket = ticket
        self._encode = encode
        self._loop = loop
        self._has_begun = False

    def whole(self, value: Any) -> None:
        """Send the value as JSON, or a Response as it is; the caller flushes. Raises EncodeError."""
        ticket = self._ticket
        if isinstance(value, Response):
            self._loop.call_soon_threadsafe(_start_alone, ticket, value, self._loop)
            return
        body = self._encode(value)
        if len(body) > wire.CHUNK_BYTES:
            large = Response(body, headers=dict(JSON_HEADERS))
            self._loop.call_soon_threadsafe(_start_alone, ticket, large, self._loop)
            return
        ticket.outlet.add(*ticket.reply(wire.Kind.WHOLE, body, 200, JSON_HEADERS))

    def part(self, value: Any) -> None:
        """Send a part; the caller flushes. Text is sent as UTF-8."""
        body = value.encode() if isinstance(value, str) else bytes(memoryview(value))
        ticket = self._ticket
        if not ticket.window.has_room:
            ticket.outlet.flush()
        ticket.window.take(len(body))
        kind = wire.Kind.PART if self._has_begun else wire.Kind.BEGIN
        self._has_begun = True
        ticket.outlet.add(*ticket.reply(kind, body))

    def finish(self) -> None:
        """The stream ends; one without parts is an empty answer."""
        kind = wire.Kind.END if self._has_begun else wire.Kind.WHOLE
        self._ticket.outlet.add(*self._ticket.reply(kind))

    async def room(self) -> None:
        """On the loop: wait until the client takes more."""
        await self._ticket.window.take_on_loop(0)

    def attach(self, task: asyncio.Task[None]) -> None:
        """End this task when the request is cancelled."""
        self._ticket.tasks.append(task)

    def flush(self) -> None:
        """Send what was added."""
        self._ticket.outlet.flush()

    def fail(self, failure: Failure) -> None:
        """An error of its own, or a stream that breaks off."""
        ticket = self._ticket
        if ticket.is_over:
            return
        if self._has_begun:
            ticket.outlet.add(*ticket.reply(wire.Kind.END, failure=failure.error))
        else:
            ticket.outlet.add(*ticket.reply(wire.Kind.WHOLE, failure.body, failure.status, failure.headers))


Message = MutableMapping[str, Any]


class Exchange:
    """A request that an ASGI application answers. `take` says that the answer comes another way after all.

    `error` is why a spec's stream failed; it is answered with its own status where nothing has been sent yet.
    """

    def __init__(self, ticket: Ticket, body: bytes = b"", batch: Any = None) -> None:
        self.ticket = ticket
        self.batch = batch
        self.failure: Failure | None = None
        self.is_taken = False
        self._body: bytes | None = body
        self._has_arrived = batch is None
        self._start: Message | None = None
        self._has_begun = False

    def start(self, app: Any, loop: asyncio.AbstractEventLoop, path: str = "/") -> asyncio.Task[None]:
        """Run the application in a task of its own."""
        return loop.create_task(self._run(app, path))

    def arrive(self) -> None:
        """Its work is there, or there will be none."""
        if not self._has_arrived:
            self._has_arrived = True
            # A spec may ask for several works, one after the other.
            asyncio.get_running_loop().call_soon(self.batch.arrive)

    async def _run(self, app: Any, path: str) -> None:
        current.set(self)
        try:
            await app(self._scope(path), self._receive, self._send)
        except asyncio.CancelledError:
            self._give_up("cancelled")
            raise
        except Exception as error:  # what the application raises after, or instead of, its own answer
            _log.exception("a request failed outside of the API")
            self._give_up(type(error).__name__)
        else:
            self._give_up("no answer")
        finally:
            self.arrive()

    def _give_up(self, reason: str) -> None:
        ticket = self.ticket
        if ticket.is_over or self.is_taken:
            return
        if self._has_begun:
            ticket.outlet.send([ticket.reply(wire.Kind.END, failure=reason)])
        else:
            body = b'{"detail":"Internal server error"}'
            ticket.outlet.send([ticket.reply(wire.Kind.WHOLE, body, 500, JSON_HEADERS)])

    def _scope(self, path: str) -> Message:
        request = self.ticket.request
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in request.headers]
        if request.content_type:
            headers.append((b"content-type", request.content_type.encode("latin-1")))
        headers.append((b"content-length", str(request.total).encode()))
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": request.method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": request.query,
            "headers": headers,
            "server": ("model", None),
            "client": None,
        }

    async def _receive(self) -> Message:
        body, self._body = self._body, None
        if body is None:
            await asyncio.Event().wait()  # the task is cancelled when the client leaves
        return {"type": "http.request", "body": body, "more_body": False}

    async def _send(self, message: Message) -> None:
        ticket = self.ticket
        if self.is_taken or ticket.is_over:
            return
        if message["type"] == "http.response.start":
            self._start = message
            return
        body, is_last = bytes(message.get("body", b"")), not message.get("more_body", False)
        assert self._start is not None
        status = int(self._start["status"])
        if self._has_begun:
            await self._send_part(body, is_last)
        elif self.failure is not None:
            failure = self.failure
            ticket.outlet.send([ticket.reply(wire.Kind.WHOLE, failure.body, failure.status, failure.headers)])
        elif is_last and len(body) <= wire.CHUNK_BYTES:
            ticket.outlet.send([ticket.reply(wire.Kind.WHOLE, body, status, _headers(self._start))])
        elif body:
            self._has_begun = True
            first, rest = body[: wire.CHUNK_BYTES], body[wire.CHUNK_BYTES :]
            await ticket.window.take_on_loop(len(first))
            ticket.outlet.send([ticket.reply(wire.Kind.BEGIN, first, status, _headers(self._start))])
            if rest or is_last:
                await self._send_part(rest, is_last)

    async def _send_part(self, body: bytes, is_last: bool) -> None:
        ticket = self.ticket
        if self.failure is not None and body and not body.endswith(b"\n\n"):
            body += b"\n\n"  # OpenAISpec's error event has no end, and the SDK drops it
        for offset in range(0, 0 if ticket.is_cancelled else len(body), wire.CHUNK_BYTES):
            part = body[offset : offset + wire.CHUNK_BYTES]
            await ticket.window.take_on_loop(len(part))
            ticket.outlet.send([ticket.reply(wire.Kind.PART, part)])
        if is_last:
            told = None if self.failure is None else "its stream failed"
            ticket.outlet.send([ticket.reply(wire.Kind.END, failure=told)])


def _headers(start: Message) -> list[tuple[str, str]]:
    pairs = ((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in start.get("headers", ()))
    return [(name, value) for name, value in pairs if name not in _NOT_SENT]


def _start_alone(ticket: Ticket, app: Any, loop: asyncio.AbstractEventLoop) -> None:
    ticket.tasks.append(Exchange(ticket).start(app, loop))
