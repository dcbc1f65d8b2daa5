"""What a request is, in LitServe's processes: its id and its trace, from the API server through the queue to its end.

LitServe knows a request by an id of its own, which nobody outside has heard of. Here the front door's id travels along
with it, so that a line that is logged while a request is worked on, by LitServe or by a plug-in, says which one it was
(`child_logs`), and the spans of both processes are in the trace of the request (`litserve_spans`). It never looks at
what is asked or answered.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from litserve.callbacks import Callback
from litserve.loops import BatchedLoop, BatchedStreamingLoop, SingleLoop, StreamingLoop
from litserve.transport.base import MessageTransport
from litserve.utils import _DEFAULT_LOG_FORMAT, LitAPIStatus, LoopResponseType

from servers.engines import child_logging as child_logs
from servers.engines.litserve.child.cancel import Receive, Scope, Send

if TYPE_CHECKING:
    from servers.engines.litserve.child.spans import RequestSpans, WorkSpans

Trace = tuple[int, int, int, str]
"""Trace id, span id, flags and tracestate of the span that goes on elsewhere."""


class Travelling(NamedTuple):
    """What goes through the queue with a request; as a plain tuple, which costs least there."""

    request_id: str
    trace: Trace | None


travelling: ContextVar[tuple[str, Trace | None]] = ContextVar("travelling", default=("", None))
"""In an API server: of the POST that is being handled."""


class Work:
    """A request in a worker; times are `time.monotonic()`."""

    __slots__ = ("queued_s", "span", "taken_s", "travelled")

    def __init__(self, travelled: Travelling, queued_s: float) -> None:
        self.travelled = travelled
        self.queued_s = queued_s
        self.taken_s = time.monotonic()
        self.span: Any = None


class Context(Callback):  # type: ignore[misc] # LitServe ships no types
    """Which requests a worker works on, from the queue until their last answer is sent.

    With `traces` it makes spans of them.
    """

    def __init__(self, traces: bool) -> None:
        self._traces = traces
        self._works: dict[str, Work] = {}
        self._how: Literal["one by one", "batched", "async", "in a loop of its own"] = "one by one"
        self._spans: WorkSpans | None = None

    def equip(self, api: Any) -> None:
        """In the main process: see how the API is run."""
        if type(api.loop) not in (BatchedLoop, BatchedStreamingLoop, SingleLoop, StreamingLoop):
            self._how = "in a loop of its own"
        elif api.enable_async:
            self._how = "async"
        elif api.max_batch_size > 1:
            self._how = "batched"

    def on_before_setup(self, *_: Any, **__: Any) -> None:
        """In a worker, first of all."""
        child_logs.tell(self._request_ids, _DEFAULT_LOG_FORMAT)
        if self._traces:
            from servers.engines.litserve.child import spans as litserve_spans

            self._spans = litserve_spans.WorkSpans()

    def on_after_setup(self, *_: Any, **__: Any) -> None:
        """The API may have set up logging."""
        child_logs.mark_handlers()

    def take(self, uid: str, travelled: tuple[str, Trace | None], queued_s: float) -> None:
        """A request has come out of the queue."""
        work = self._works[uid] = Work(Travelling(*travelled), queued_s)
        if self._how == "one by one" and self._spans is not None:  # of a stream, nobody is told when it is decoded
            self._spans.begin([work])

    def done(self, uid: str, error: Any = None) -> None:
        """The last of its answer has been sent, or the error that it got."""
        work = self._works.pop(uid, None)
        if work is not None and self._spans is not None:
            self._spans.end(work, error)

    def on_before_decode_request(self, *_: Any, **__: Any) -> None:
        """A batch is complete, or a request of an async API has its task."""
        if self._how == "async":
            work = self._work_of_task()
            _own.set(work)
            if work is not None and self._spans is not None:
                self._spans.begin([work])
        elif self._how == "batched" and self._spans is not None:
            self._spans.begin(list(self._works.values()))

    def on_after_decode_request(self, *_: Any, **__: Any) -> None:
        """Decoded."""
        if self._spans is not None:
            self._spans.step("decode")

    def on_before_encode_response(self, *_: Any, **__: Any) -> None:
        """Predicted; of a stream, begun."""
        if self._spans is not None:
            self._spans.step("predict")

    def on_after_encode_response(self, *_: Any, **__: Any) -> None:
        """Encoded; of a stream, generated."""
        if self._spans is not None:
            self._spans.step("encode")

    def _work_of_task(self) -> Work | None:
        # LitServe tells its callbacks no id, and names the task of each request after it.
        task = asyncio.current_task()
        return None if task is None else self._works.get(task.get_name().rpartition("_")[2])

    def _request_ids(self) -> str:
        own = _own.get()
        works = [own] if own is not None else [] if self._how == "async" else list(self._works.values())
        return ",".join(work.travelled.request_id for work in works if work.travelled.request_id)


_own: ContextVar[Work | None] = ContextVar("own_work", default=None)
"""In a worker of an async API: the request of this task."""


class ContextTransport(MessageTransport):  # type: ignore[misc] # LitServe ships no types
    """LitServe's way back for answers, from which is learnt that a request is over."""

    def __init__(self, transport: Any, context: Context) -> None:
        self._transport = transport
        self._context = context

    def send(self, item: Any, consumer_id: int) -> None:
        """In a worker: send an answer, or a part of a stream."""
        self._transport.send(item, consumer_id=consumer_id)
        uid, (answer, status, kind, _) = item
        is_whole = kind is LoopResponseType.REGULAR and status == LitAPIStatus.OK
        if status == LitAPIStatus.ERROR:
            self._context.done(str(uid), answer)  # a spec's ids are no strings
        elif is_whole or status == LitAPIStatus.FINISH_STREAMING:
            self._context.done(str(uid))

    def areceive(self, *args: Any, **options: Any) -> Any:
        """In an API server: the next answer."""
        return self._transport.areceive(*args, **options)

    def close(self, *args: Any, **options: Any) -> None:
        """No more answers."""
        self._transport.close(*args, **options)


class HttpContext:
    """ASGI middleware: notes the id of each POST and, with `traces`, makes the span of it. The outermost of ours."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], traces: bool) -> None:
        # Made in the API server's own process, at its first event.
        self._app = app
        self._spans: RequestSpans | None = None
        child_logs.tell(lambda: travelling.get()[0], _DEFAULT_LOG_FORMAT)
        if traces:
            from servers.engines.litserve.child import spans as litserve_spans

            self._spans = litserve_spans.RequestSpans()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request, or the process's whole life."""
        if scope["type"] == "http" and scope["method"] == "POST":
            await self._handle(scope, receive, send)
            return
        await self._app(scope, receive, send)
        if scope["type"] == "lifespan" and self._spans is not None:
            self._spans.close()

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id, has_trace = "", False
        for name, value in scope["headers"]:
            if name == b"x-request-id":
                request_id = value.decode("latin-1")
            elif name == b"traceparent":
                has_trace = True
        if self._spans is None or not has_trace:  # a canary has none
            travelling.set((request_id, None))
            await self._app(scope, receive, send)
            return
        span = self._spans.begin(scope, request_id)
        travelling.set((request_id, span.trace))
        try:
            await self._app(scope, receive, span.watch(send))
        except BaseException as error:
            span.fail(error)
            raise
        finally:
            span.end()
