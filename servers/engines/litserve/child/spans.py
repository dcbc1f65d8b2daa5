"""The spans of a request in LitServe's processes: one in the API server, one for the queue, one in the worker.

Imported only where traces are on. A worker's span lasts from the queue until the answer is sent, and is the current one
while the worker works on its request, so that spans of a plug-in's own are below it. It carries the time of each step.
A batch of several requests has a span of its own, `litserve.batch`: below the first request's, with links to all.
"""

import logging
import sys
import time
from collections.abc import Mapping, Sequence
from contextvars import Token
from typing import Any

from opentelemetry import context, trace
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, StatusCode, TraceFlags, TraceState
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.exceptions import HTTPException

from servers.engines.litserve.child.work import Batch, Listener, LoopKind, Request, Step, Trace
from servers.telemetry import otlp

_W3C = TraceContextTextMapPropagator()
# The front door logs loud enough that the collector is away.
_LEVEL = logging.INFO
# A stream's answer is over before LitServe announces that the stream is generated.
_STEP_AFTER: dict[Step, Step | None] = {"decode": "predict", "predict": "encode", "encode": None}


class RequestSpans:
    """In an API server: a span for each POST that the front door has passed on with a trace."""

    def __init__(self) -> None:
        self._provider = otlp.provider("api server", _LEVEL)
        self._tracer = self._provider.get_tracer("litport.litserve")

    def begin(self, path: str, headers: Mapping[bytes, bytes], request_id: str) -> "RequestSpan":
        """The request has come."""
        carrier = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers.items()}
        attributes = {"http.request.method": "POST", "http.route": path, "url.path": path}
        span = self._tracer.start_span(
            f"POST {path}",
            context=_W3C.extract(carrier),
            kind=SpanKind.SERVER,
            attributes={**attributes, "litport.request_id": request_id},
        )
        return RequestSpan(span)

    def close(self) -> None:
        """Send the last spans."""
        otlp.shut_down(self._provider)


class RequestSpan:
    """The span of one POST."""

    def __init__(self, span: Span) -> None:
        self._span = span
        origin = span.get_span_context()
        self.trace: Trace = (origin.trace_id, origin.span_id, int(origin.trace_flags), origin.trace_state.to_header())

    def note_status(self, status: int) -> None:
        """The answer begins."""
        self._span.set_attribute("http.response.status_code", status)
        if status >= 500:
            _set_error(self._span, str(status))

    def fail(self, error: BaseException) -> None:
        """There is no whole answer."""
        _set_error(self._span, type(error).__name__)

    def end(self) -> None:
        """It is answered, or never will be."""
        self._span.end()


class _BatchTrace:
    """The requests of a batch that have a trace, and the span that is current while the worker works on them."""

    def __init__(self, requests: Sequence[Request], span: Span) -> None:
        self.requests = requests
        self.unanswered = len(requests)
        self.span = span
        self.parent = trace.set_span_in_context(span)
        self.token: Token[Any] = context.attach(self.parent)
        self.step: Step | None = "decode"
        self.step_begin_s = time.monotonic()


class WorkerSpans(Listener):
    """In a worker: the spans of its requests, batches and their steps."""

    def start(self, api: Any) -> None:
        """Set up the SDK."""
        self._kind = LoopKind.of(api)
        provider = otlp.provider("worker", _LEVEL)
        if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):  # the plug-in has not made one
            trace.set_tracer_provider(provider)
        self._tracer = provider.get_tracer("litport.litserve")

    def batch_began(self, batch: Batch) -> None:
        """Begin the spans of these requests; those that came without a trace get none."""
        if self._kind is LoopKind.CUSTOM:  # its steps may be of several batches at once
            return
        now_s = time.monotonic()
        for request in batch.requests:
            request.span = self._begin(request, now_s, len(batch.requests))
        requests = [request for request in batch.requests if request.span.is_recording()]
        if not requests:
            return
        span = requests[0].span
        if len(batch.requests) > 1:
            span = self._tracer.start_span(
                "litserve.batch",
                trace.set_span_in_context(span),
                links=[Link(request.span.get_span_context()) for request in requests],
                attributes={"litserve.batch_size": len(batch.requests)},
            )
            for request in requests:
                request.span.add_link(span.get_span_context())
        batch.trace = _BatchTrace(requests, span)

    def step_ended(self, batch: Batch, step: Step, _spent_s: float) -> None:
        """A step that LitServe does not announce, as a stream's decoding, is part of the next."""
        batch_trace: _BatchTrace | None = batch.trace
        if batch_trace is not None and step != "batch_wait":
            self._close(step, batch_trace, batch_trace.requests)
            batch_trace.step_begin_s = time.monotonic()
            batch_trace.step = _STEP_AFTER[step]

    def request_answered(self, request: Request, error: Any) -> None:
        """End the span of the request, and with the last one that of its batch."""
        if request.span is None:  # it has waited for too long, or a loop of the API's own has answered it
            request.span = self._begin(request, time.monotonic(), 1)
        if not request.span.is_recording():
            return
        if error is not None:
            _note_error(error, request.span)
        batch_trace: _BatchTrace | None = request.batch.trace if request.batch is not None else None
        if batch_trace is not None and batch_trace.step is not None:
            self._close(batch_trace.step, batch_trace, [request], error)
        request.span.end()
        if batch_trace is None or request.batch is None:
            return
        batch_trace.unanswered -= 1
        if not batch_trace.unanswered:
            if batch_trace.span.is_recording():
                if error is not None:
                    batch_trace.span.set_status(StatusCode.ERROR)
                batch_trace.span.end()
            request.batch.trace = None
            context.detach(batch_trace.token)

    def _close(self, step: Step, batch: _BatchTrace, requests: Sequence[Request], error: Any = None) -> None:
        now_s = time.monotonic()
        if requests[0] is batch.requests[0]:  # once a batch
            span = self._tracer.start_span(f"litserve.{step}", batch.parent, start_time=_time_ns(batch.step_begin_s))
            if error is not None:
                span.set_status(StatusCode.ERROR)
            span.end(_time_ns(now_s))
        for request in requests:
            request.span.set_attribute(f"litserve.{step}_s", round(now_s - batch.step_begin_s, 6))

    def _begin(self, request: Request, now_s: float, size: int) -> Span:
        if request.trace is None:
            return trace.INVALID_SPAN
        trace_id, span_id, flags, state = request.trace
        trace_state = TraceState.from_header([state]) if state else None
        remote = SpanContext(trace_id, span_id, True, TraceFlags(flags), trace_state)
        parent = trace.set_span_in_context(trace.NonRecordingSpan(remote), context.Context())
        taken_ns = _time_ns(request.taken_s)
        queue = self._tracer.start_span("litserve.queue", parent, start_time=_time_ns(request.queued_s))
        queue.end(taken_ns)
        attributes: dict[str, str | int | float] = {
            "litport.request_id": request.request_id,
            "litserve.batch_size": size,
            "litserve.queue_s": round(request.taken_s - request.queued_s, 6),
            "litserve.batch_wait_s": round(now_s - request.taken_s, 6),
        }
        return self._tracer.start_span(
            "litserve.worker", parent, kind=SpanKind.CONSUMER, attributes=attributes, start_time=taken_ns
        )


def _time_ns(monotonic_s: float) -> int:
    # Steps are timed by a clock that nobody sets, and spans want the time of day.
    return time.time_ns() - time.monotonic_ns() + int(monotonic_s * 1e9)


def _note_error(error: Any, span: Span) -> None:
    """Note the kind of the error, but not its text, which may be the client's."""
    # LitServe pickles most errors, and answers from where it has caught them.
    error = sys.exc_info()[1] or error
    if isinstance(error, HTTPException):
        span.set_attribute("http.response.status_code", error.status_code)
        if error.status_code < 500:
            return
    _set_error(span, type(error).__name__)


def _set_error(span: Span, kind: str) -> None:
    span.set_attribute("error.type", kind)
    span.set_status(StatusCode.ERROR)
