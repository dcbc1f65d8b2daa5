"""A POST and its answer in one of LitServe's API servers: its id, its time, its trace, and whether its client left.

LitServe knows a request by an id of its own. Here the front door's id is read from the head, so that lines that are
logged meanwhile name it (`child_logging`), and the queue passes it on to the worker.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from litserve.utils import _DEFAULT_LOG_FORMAT

from servers.engines import child_logging
from servers.engines.litserve.child import timing
from servers.engines.litserve.child.cancellations import Cancellations

if TYPE_CHECKING:
    from servers.engines.litserve.child.spans import RequestSpan

# Most requests are answered sooner, and cost no task that listens whether their client is still there.
_LISTEN_AFTER_S = 0.25

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


class ExchangeMiddleware:
    """ASGI middleware: makes an exchange of each POST, with a span if it has `traces`, and answers `/metrics`."""

    def __init__(
        self, app: Callable[[Scope, Receive, Send], Awaitable[None]], cancellations: Cancellations, traces: bool
    ) -> None:
        # Made in the API server's own process, at its first event.
        self._app = app
        self._cancellations = cancellations
        self._spans = None
        child_logging.install(_request_id, _DEFAULT_LOG_FORMAT)
        if traces:
            from servers.engines.litserve.child.spans import RequestSpans

            self._spans = RequestSpans()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request, or the process's whole life."""
        if scope["type"] == "http" and scope["path"] == "/metrics":
            await timing.send_page(send)
        elif scope["type"] == "http" and scope["method"] == "POST":
            await self._handle(scope, receive, send)
        else:
            await self._app(scope, receive, send)
            if scope["type"] == "lifespan" and self._spans is not None:
                self._spans.close()

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        request_id = headers.get(b"x-request-id", b"").decode("latin-1")
        span = None
        if self._spans is not None and b"traceparent" in headers:  # a canary has none
            span = self._spans.begin(scope["path"], headers, request_id)
        exchange = Exchange(request_id, span, self._cancellations, receive, send)
        current_exchange.set(exchange)
        try:
            await self._app(scope, receive, exchange.send)
        except BaseException as error:
            if span is not None:
                span.fail(error)
            raise
        finally:
            exchange.close()


class Exchange:
    """One POST and its answer."""

    def __init__(
        self, request_id: str, span: "RequestSpan | None", cancellations: Cancellations, receive: Receive, send: Send
    ) -> None:
        self.request_id = request_id
        self.trace = None if span is None else span.trace
        self._span = span
        self._cancellations = cancellations
        self._receive = receive
        self._send = send
        self._begin_s = time.monotonic()
        self._uids: list[str] = []
        self._is_whole = False
        self._is_cancelled = False
        self._listening: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(_LISTEN_AFTER_S, self._listen)

    def note_queued(self, uid: str) -> None:
        """LitServe puts it into the queue under this id; some specs make several requests of one."""
        if not self._uids:
            timing.count("receive", time.monotonic() - self._begin_s)
        self._uids.append(uid)

    async def send(self, message: Any) -> None:
        """Pass a piece of the answer on."""
        if message["type"] == "http.response.start" and self._span is not None:
            self._span.note_status(message["status"])
        elif message["type"] == "http.response.body" and not message.get("more_body"):
            self._is_whole = True
        await self._send(message)

    def close(self) -> None:
        """The handler has ended: with an answer, or because there is nobody to send it to."""
        self._timer.cancel()
        if self._listening is not None:
            self._listening.cancel()
        if not self._is_whole:
            self._cancel()
        elif self._is_cancelled:
            for uid in self._uids:
                self._cancellations.remove(uid)
        timing.count("http", time.monotonic() - self._begin_s)
        if self._span is not None:
            self._span.end()

    def _listen(self) -> None:
        if self._uids:
            self._listening = self._loop.create_task(self._await_leave())
        else:  # the body is still coming, and the handler must be the one that gets it
            self._timer = self._loop.call_later(_LISTEN_AFTER_S, self._listen)

    async def _await_leave(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if not self._is_whole:
            self._cancel()

    def _cancel(self) -> None:
        if not self._is_cancelled:
            self._is_cancelled = True
            for uid in self._uids:
                self._cancellations.add(uid)


current_exchange: ContextVar[Exchange | None] = ContextVar("current_exchange", default=None)
"""The POST that an API server handles in this task."""


def _request_id() -> str:
    exchange = current_exchange.get()
    return "" if exchange is None else exchange.request_id
