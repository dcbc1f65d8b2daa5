"""A request that FastAPI or a spec answers, as an ASGI application on the worker's loop.

That are refusals of FastAPI's parsing, everything of a spec, and whole answers too long for one frame.
"""

import asyncio
import logging
from collections.abc import MutableMapping
from contextvars import ContextVar
from http import HTTPStatus
from typing import Any

from servers.engines.litserve.host import wire
from servers.engines.litserve.host.failure import Failure
from servers.engines.litserve.host.headers import valid
from servers.engines.litserve.host.ticket import JSON_HEADERS, Ticket

_log = logging.getLogger("litport.worker")
_NOT_SENT = frozenset({"transfer-encoding", "connection"})

current: ContextVar["Exchange | None"] = ContextVar("exchange", default=None)
"""The exchange whose ASGI application runs."""

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
        elif self.failure is not None and status == HTTPStatus.OK:  # a stream of which nothing has gone out
            failure = self.failure
            ticket.outlet.send([ticket.reply(wire.Kind.WHOLE, failure.body, failure.status, failure.headers)])
        elif is_last and len(body) <= wire.CHUNK_BYTES:
            headers = [pair for pair in _headers(self._start) if pair[0] != "content-length"]
            ticket.outlet.send([ticket.reply(wire.Kind.WHOLE, body, status, headers)])
        elif body:
            self._has_begun = True
            first, remainder = body[: wire.CHUNK_BYTES], body[wire.CHUNK_BYTES :]
            await ticket.window.take_on_loop(len(first))
            is_worked = self.batch is None  # it only sends what the API has answered
            begin = ticket.reply(wire.Kind.BEGIN, first, status, _headers(self._start), is_worked=is_worked)
            ticket.outlet.send([begin])
            if remainder or is_last:
                await self._send_part(remainder, is_last)

    async def _send_part(self, body: bytes, is_last: bool) -> None:
        ticket = self.ticket
        if self.failure is not None and body and not body.endswith(b"\n\n"):
            body += b"\n\n"  # OpenAISpec's error event has no end, and the SDK drops it
        for offset in range(0, 0 if ticket.is_cancelled else len(body), wire.CHUNK_BYTES):
            part = body[offset : offset + wire.CHUNK_BYTES]
            await ticket.window.take_on_loop(len(part))
            ticket.outlet.send([ticket.reply(wire.Kind.PART, part)])
        if is_last:
            reason = None if self.failure is None else "its stream failed"
            ticket.outlet.send([ticket.reply(wire.Kind.END, failure=reason)])


def _headers(start: Message) -> list[tuple[str, str]]:
    pairs = ((name.decode("latin-1"), value.decode("latin-1")) for name, value in start.get("headers", ()))
    return [(name, value) for name, value in valid(pairs) if name not in _NOT_SENT]
