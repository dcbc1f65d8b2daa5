"""The spans of a request in LitServe's processes: one in the API server, one for the queue, one in the worker.

Imported only where traces are on. A worker's span lasts from the queue until the answer is sent, and is the current one
while its request is worked on, so that spans of a plug-in's own are below it. It carries the time of each step. What is
done for several requests at once is a span of its own, `litserve.batch`: below the first request's, with links to all.
"""

import logging
import sys
import time
from collections.abc import Sequence
from contextvars import ContextVar, Token
from typing import Any

from opentelemetry import context, trace
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, StatusCode, TraceFlags, TraceState
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.exceptions import HTTPException

from servers.engines.litserve.child.cancel import Scope, Send
from servers.engines.litserve.child.context import Trace, Work
from servers.telemetry import otlp

_W3C = TraceContextTextMapPropagator()
# The front door says loud enough that the collector is away.
_QUIET = logging.INFO


class RequestSpans:
    """In an API server: a span for each POST that the front door has passed on with a trace."""

    def __init__(self) -> None:
        self._provider = otlp.provider("api server", _QUIET)
        self._tracer = self._provider.get_tracer("litport.litserve")

    def begin(self, scope: Scope, request_id: str) -> "RequestSpan":
        """The request has come."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        attributes = {
            "http.request.method": "POST",
            "http.route": scope["path"],
            "url.path": scope["path"],
            "litport.request_id": request_id,
        }
        span = self._tracer.start_span(
            f"POST {scope['path']}", context=_W3C.extract(headers), kind=SpanKind.SERVER, attributes=attributes
        )
        return RequestSpan(span)

    def close(self) -> None:
        """Send what is left."""
        otlp.shut_down(self._provider)


class RequestSpan:
    """The span of one POST."""

    def __init__(self, span: Span) -> None:
        self._span = span
        made = span.get_span_context()
        self.trace: Trace = (made.trace_id, made.span_id, int(made.trace_flags), made.trace_state.to_header())

    def watch(self, send: Send) -> Send:
        """ASGI's `send`, which lets the span know the status."""

        async def watched(message: Any) -> None:
            if message["type"] == "http.response.start":
                self._span.set_attribute("http.response.status_code", message["status"])
                if message["status"] >= 500:
                    _mark(self._span, str(message["status"]))
            await send(message)

        return watched

    def fail(self, error: BaseException) -> None:
        """There is no whole answer."""
        _mark(self._span, type(error).__name__)

    def end(self) -> None:
        """It is answered, or never will be."""
        self._span.end()


class Batch:
    """Requests that a worker works on together, mostly one; `step` runs since `step_s`."""

    def __init__(self, works: Sequence[Work], span: Span, parent: context.Context, token: Token[Any]) -> None:
        self.left = len(works)
        self.works = works
        self.span = span
        self.parent = parent
        self.token = token
        self.step_s = time.monotonic()
        self.step: str | None = "decode"


_batch: ContextVar[Batch | None] = ContextVar("batch", default=None)
# When a stream ends, nobody has been told yet that it is generated.
_FOLLOWING = {"decode": "predict", "predict": "encode", "encode": None}


class WorkSpans:
    """In a worker."""

    def __init__(self) -> None:
        provider = otlp.provider("worker", _QUIET)
        if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):  # the plug-in has not made one
            trace.set_tracer_provider(provider)
        self._tracer = provider.get_tracer("litport.litserve")

    def begin(self, works: Sequence[Work]) -> None:
        """Work on these begins. Those that came without a trace get no span of their own."""
        now_s = time.monotonic()
        for work in works:
            work.span = self._span_of(work, now_s, len(works))
        traced = [work for work in works if work.span.is_recording()]
        if not traced:
            _batch.set(None)
            return
        span = traced[0].span
        if len(works) > 1:
            span = self._tracer.start_span(
                "litserve.batch",
                trace.set_span_in_context(span),
                links=[Link(work.span.get_span_context()) for work in traced],
                attributes={"litserve.batch_size": len(works)},
            )
            for work in traced:
                work.span.add_link(span.get_span_context())
        parent = trace.set_span_in_context(span)
        _batch.set(Batch(traced, span, parent, context.attach(parent)))

    def step(self, name: str) -> None:
        """A step ends; one that nobody was told of, as the decoding of a stream, is part of it."""
        batch = _batch.get()
        if batch is not None:
            self._close(name, batch, batch.works)
            batch.step_s = time.monotonic()
            batch.step = _FOLLOWING[name]

    def end(self, work: Work, error: Any) -> None:
        """The answer of this one has been sent, or the error that it got."""
        if work.span is None:  # refused before it was worked on, or worked on in a loop that tells nobody
            work.span = self._span_of(work, time.monotonic(), 1)
        if not work.span.is_recording():
            return
        if error is not None:
            _note(error, work.span)
        batch = _batch.get()
        if batch is None or work not in batch.works:
            work.span.end()
            return
        if batch.step is not None:
            self._close(batch.step, batch, [work], error)
        work.span.end()
        batch.left -= 1
        if not batch.left:
            if batch.span.is_recording():
                if error is not None:
                    batch.span.set_status(StatusCode.ERROR)
                batch.span.end()
            _batch.set(None)
            context.detach(batch.token)

    def _close(self, name: str, batch: Batch, works: Sequence[Work], error: Any = None) -> None:
        now_s = time.monotonic()
        if works[0] is batch.works[0]:  # once a batch
            child = self._tracer.start_span(f"litserve.{name}", batch.parent, start_time=_time_ns(batch.step_s))
            if error is not None:
                child.set_status(StatusCode.ERROR)
            child.end(_time_ns(now_s))
        for work in works:
            work.span.set_attribute(f"litserve.{name}_s", round(now_s - batch.step_s, 6))

    def _span_of(self, work: Work, now_s: float, size: int) -> Span:
        travelled = work.travelled
        if travelled.trace is None:
            return trace.INVALID_SPAN
        trace_id, span_id, flags, state = travelled.trace
        above = SpanContext(
            trace_id, span_id, True, TraceFlags(flags), TraceState.from_header([state]) if state else None
        )
        parent = trace.set_span_in_context(trace.NonRecordingSpan(above), context.Context())
        taken_ns = _time_ns(work.taken_s)
        queue = self._tracer.start_span("litserve.queue", parent, start_time=_time_ns(work.queued_s))
        queue.end(taken_ns)
        attributes: dict[str, str | int | float] = {
            "litport.request_id": travelled.request_id,
            "litserve.batch_size": size,
            "litserve.queue_s": round(work.taken_s - work.queued_s, 6),
            "litserve.batch_wait_s": round(now_s - work.taken_s, 6),
        }
        return self._tracer.start_span(
            "litserve.worker", parent, kind=SpanKind.CONSUMER, attributes=attributes, start_time=taken_ns
        )


def _time_ns(monotonic_s: float) -> int:
    # Steps are timed by a clock that nobody sets, and spans are told in time of day.
    return time.time_ns() - time.monotonic_ns() + int(monotonic_s * 1e9)


def _note(error: Any, span: Span) -> None:
    """The kind of the error, and never its words, which may be the client's."""
    # LitServe pickles most errors, and answers from where it has caught them.
    error = sys.exc_info()[1] or error
    if isinstance(error, HTTPException):
        span.set_attribute("http.response.status_code", error.status_code)
        if error.status_code < 500:
            return
    _mark(span, type(error).__name__)


def _mark(span: Span, kind: str) -> None:
    span.set_attribute("error.type", kind)
    span.set_status(StatusCode.ERROR)
