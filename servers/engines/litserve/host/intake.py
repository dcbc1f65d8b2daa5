"""The way into a worker: one connection of the front door's, its requests parsed while the API computes.

It runs on the worker's loop, which has a thread of its own unless the API is async.
"""

import asyncio
import inspect
import logging
import socket
from collections.abc import Callable, Sequence
from typing import Any

from litserve import LitAPI
from litserve.callbacks import CallbackRunner
from starlette.responses import Response

from servers.engines.litserve.host import wire
from servers.engines.litserve.host.direct_reply import DirectReply
from servers.engines.litserve.host.encode import Encode
from servers.engines.litserve.host.exchange import Exchange, current
from servers.engines.litserve.host.failure import failure_of
from servers.engines.litserve.host.interrupt import AGAIN_S, Execution
from servers.engines.litserve.host.outlet import Outlet
from servers.engines.litserve.host.route import LONG_WAY, Route
from servers.engines.litserve.host.specs import ShortSpec, SpecServer
from servers.engines.litserve.host.tensors.route import TensorRoute
from servers.engines.litserve.host.ticket import Ticket
from servers.engines.litserve.host.work import Work

_log = logging.getLogger("litport.worker")
_READ_BYTES = 256 * 1024


class Service:
    """What the connections of a worker share: the API's route or spec, and where complete batches go.

    `short` is the way around FastAPI, for APIs without a spec and specs that allow it.
    `tensors` takes the inference requests with tensors, where the API declares some.
    """

    def __init__(
        self,
        api: LitAPI,
        loop: asyncio.AbstractEventLoop,
        execution: Execution,
        deliver: Callable[[Sequence[Work]], None],
        on_first_answer: Callable[[], None],
        callbacks: CallbackRunner | None = None,
    ) -> None:
        self._callbacks = callbacks
        self.loop = loop
        self.execution = execution
        self.deliver = deliver
        self._on_first_answer: Callable[[], None] | None = on_first_answer
        self.path: str = api.api_path
        self.batch_size: int = api.max_batch_size
        self.is_async = bool(api.enable_async)
        self.health = api.health
        self.route: Route | None = None
        self.short: Route | ShortSpec | None = None
        self.tensors: TensorRoute | None = None
        if api.spec is None:
            self.short = self.route = Route(api, self._take)
            self.app = self.route.app
        else:
            self.app = SpecServer(api, loop, _submit, callbacks).app
            if callbacks is None:  # the endpoint tells them of its requests
                self.short = ShortSpec.of(api.spec)

    def count_request(self) -> None:
        """A request has come; a spec tells the callbacks itself."""
        if self._callbacks is not None and self.route is not None:
            self._callbacks.trigger_event("on_request", active_requests=None, litserver=None)

    def count_answer(self) -> None:
        """From either thread: a request is answered, or broken off."""
        if self._callbacks is not None and self.route is not None:
            self._callbacks.trigger_event("on_response", litserver=None)
        report, self._on_first_answer = self._on_first_answer, None
        if report is not None:
            report()

    async def _take(self, value: Any) -> Response:
        """FastAPI has parsed the request of the current exchange; the API's thread answers it."""
        exchange = current.get()
        assert exchange is not None
        assert self.route is not None
        exchange.is_taken = True
        _submit(direct_work(exchange.ticket, value, self.route.encode, self.loop), exchange)
        if self.route.may_have_files:  # FastAPI closes them once this returns
            await exchange.ticket.wait_for_end()
        return Response()


def _submit(work: Work, exchange: Exchange) -> None:
    exchange.batch.add(work)
    exchange.arrive()


def direct_work(ticket: Ticket, value: Any, encode: Encode, loop: asyncio.AbstractEventLoop) -> Work:
    """A work that is answered from the API's thread."""
    work = Work(value, DirectReply(ticket, encode, loop), ticket.request)
    ticket.add(work)
    return work


class Batch:
    """Requests that came together; it goes on once each has its work, or will have none."""

    def __init__(self, size: int, service: Service) -> None:
        self._works: list[Work] = []
        self._open = size
        self._service = service

    def add(self, work: Work) -> None:
        """One of its requests asks for this."""
        if self._open > 0:
            self._works.append(work)
        else:
            self._service.deliver([work])

    def arrive(self) -> None:
        """One of its requests is parsed."""
        self._open -= 1
        if self._open <= 0:
            works, self._works = self._works, []
            step = self._service.batch_size
            for begin in range(0, len(works), step):
                self._service.deliver(works[begin : begin + step])


class Intake:
    """One connection. `on_close` is called when it is closed, and nothing of it is left."""

    def __init__(self, connection: socket.socket, service: Service, on_close: Callable[["Intake"], None]) -> None:
        self.outlet = Outlet(connection)
        self._connection = connection
        self._service = service
        self._on_close = on_close
        self._reader = wire.Reader()
        self._tickets: dict[int, Ticket] = {}
        self._coming: dict[int, tuple[wire.Request, Batch, list[bytes]]] = {}
        self._pongs: set[asyncio.Task[None]] = set()
        self._is_leaving = False
        self._is_read = False
        connection.setblocking(False)
        service.loop.add_reader(connection, self._read)

    def leave(self) -> None:
        """Say that no more requests are taken; the front door then closes its side."""
        self._is_leaving = True
        self.outlet.send_frame(wire.Leaving())

    def _read(self) -> None:
        try:
            data = self._connection.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._end()
            return
        try:
            for head, body in self._reader.feed(data):
                self._take(head, body)
        except wire.WireError as problem:
            _log.error("the front door's connection is closed: %s", problem)
            self._end()

    def _end(self) -> None:
        self._service.loop.remove_reader(self._connection)
        self._is_read = True
        if not self._is_leaving:  # the front door is gone
            self.outlet.is_closed = True
            self._cancel(list(self._tickets))
        self._close_if_over()

    def _close_if_over(self) -> None:
        if self._is_read and not self._tickets:
            if not self._is_leaving:  # else the API's thread may be about to send the last answers; the process ends
                self._connection.close()
            self._on_close(self)

    def _take(self, head: wire.Head, body: bytes) -> None:
        match head:
            case wire.Requests(requests):
                self._take_requests(requests, body)
            case wire.Chunk(number):
                self._take_chunk(number, body)
            case wire.Cancel(ids):
                self._cancel(ids)
            case wire.Grant(number, size):
                if ticket := self._tickets.get(number):
                    ticket.window.grant(size)
            case wire.Ping():
                task = self._service.loop.create_task(self._pong())
                self._pongs.add(task)
                task.add_done_callback(self._pongs.discard)
            case _:
                raise wire.WireError(f"expected a request, got {type(head).__name__}")

    async def _pong(self) -> None:
        try:
            health = self._service.health()
            is_healthy = bool(await health if inspect.isawaitable(health) else health)
        except Exception:  # the API's own
            _log.exception("health() failed")
            is_healthy = False
        self.outlet.send_frame(wire.Pong(is_healthy))

    def _take_requests(self, requests: Sequence[wire.Request], bodies: bytes) -> None:
        service = self._service
        together = Batch(len(requests), service) if service.batch_size > 1 else None
        offset = 0
        for request in requests:
            batch = together or Batch(1, service)
            body = bodies[offset : offset + request.size] if len(requests) > 1 else bodies
            offset += request.size
            if request.size < request.total:
                self._coming[request.id] = (request, batch, [body])
            else:
                self._begin(request, body, batch)

    def _take_chunk(self, number: int, body: bytes) -> None:
        if number not in self._coming:
            return  # it was cancelled
        request, batch, parts = self._coming[number]
        parts.append(body)
        if sum(map(len, parts)) >= request.total:
            del self._coming[number]
            self._begin(request, b"".join(parts), batch)

    def _begin(self, request: wire.Request, body: bytes, batch: Batch) -> None:
        service = self._service
        ticket = self._tickets[request.id] = Ticket(request, self.outlet, self._forget)
        service.count_request()
        if request.has_tensors:
            self._begin_tensors(ticket, body, batch)
            return
        if service.short is not None and request.method == "POST":
            value = service.short.parse(request.content_type.partition(";")[0].strip().lower(), body)
            if value is not LONG_WAY:
                batch.add(direct_work(ticket, value, service.short.encode_for(value), service.loop))
                batch.arrive()
                return
        Exchange(ticket, body, batch).start(service.app, service.loop, service.path)

    def _begin_tensors(self, ticket: Ticket, body: bytes, batch: Batch) -> None:
        try:
            assert self._service.tensors is not None, "the front door asked for what the card lacks"
            batch.add(self._service.tensors.work(ticket, body))
        except Exception as error:  # decode_tensors may raise whatever an API's code raises
            failure = failure_of(error)
            if not failure.is_expected:
                _log.exception("the API failed while it decoded tensors")
            self.outlet.send([ticket.reply(wire.Kind.WHOLE, failure.body, failure.status, failure.headers)])
        batch.arrive()

    def _forget(self, number: int) -> None:
        """From either thread: the answer is sent, or will be with the next frame."""
        self._tickets.pop(number, None)
        self._service.count_answer()
        if self._is_read:
            self._service.loop.call_soon_threadsafe(self._close_if_over)

    def _cancel(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            if ticket := self._tickets.get(number):
                ticket.cancel()
            elif coming := self._coming.pop(number, None):
                request, batch, _ = coming
                reply = wire.Reply(request.id, wire.Kind.WHOLE, 0, 499)
                self.outlet.send([(reply, b"")])
                batch.arrive()
        self._interrupt()

    def _interrupt(self) -> None:
        if not self._service.is_async and self._service.execution.interrupt():
            self._service.loop.call_later(AGAIN_S, self._interrupt)
