"""Answers that go out from the thread that ran the API, as most do."""

import asyncio
from collections.abc import Sequence
from typing import Any

from starlette.responses import Response

from servers.engines.litserve.host import wire
from servers.engines.litserve.host.encode import Encode, part_bytes
from servers.engines.litserve.host.exchange import Exchange
from servers.engines.litserve.host.failure import Failure
from servers.engines.litserve.host.ticket import JSON_HEADERS, Ticket


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
        self._send(self._encode(value), JSON_HEADERS)

    def _send(self, body: bytes, headers: Sequence[tuple[str, str]]) -> None:
        if len(body) > wire.CHUNK_BYTES:
            large = Response(body, headers=dict(headers))
            self._loop.call_soon_threadsafe(_start_alone, self._ticket, large, self._loop)
            return
        self._ticket.outlet.add(*self._ticket.reply(wire.Kind.WHOLE, body, 200, headers))

    def part(self, value: Any) -> None:
        """Send a part; the caller flushes. Raises EncodeError."""
        body = part_bytes(value)
        ticket = self._ticket
        if not ticket.window.has_room:
            ticket.outlet.flush()
        ticket.window.take(len(body))
        kind = wire.Kind.PART if self._has_begun else wire.Kind.BEGIN
        self._has_begun = True
        ticket.outlet.add(*ticket.reply(kind, body))

    def finish(self) -> None:
        """The stream ends; one without parts is an empty one."""
        if not self._has_begun:
            self._ticket.outlet.add(*self._ticket.reply(wire.Kind.BEGIN))
        self._ticket.outlet.add(*self._ticket.reply(wire.Kind.END))

    async def room(self) -> None:
        """On the loop: wait until the client takes more."""
        await self._ticket.window.take_on_loop(0)

    def attach(self, task: asyncio.Task[None]) -> None:
        """End this task when the request is cancelled."""
        self._ticket.attach(task)

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


def _start_alone(ticket: Ticket, app: Any, loop: asyncio.AbstractEventLoop) -> None:
    ticket.attach(Exchange(ticket).start(app, loop))
