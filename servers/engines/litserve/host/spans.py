"""The spans of a worker: one for each request that came with a trace, and within it the steps.

While the API works, the span is the current one, so that a plug-in's own spans are below it. What is done for several
requests at once is a span of its own, `litserve.batch`: below the first request's, with links to all.
"""

import time
from collections.abc import Sequence
from contextvars import Token
from typing import Any

from opentelemetry import context, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Link, Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from servers.engines.litserve.host.work import Work

_W3C = TraceContextTextMapPropagator()


class Running:
    """The spans of works that are worked on together; `span` is the current one."""

    def __init__(self, pairs: Sequence[tuple[Work, Span]], span: Span, token: Token[context.Context]) -> None:
        self.pairs = pairs
        self.span = span
        self.token = token


class WorkSpans:
    """Makes the spans of a worker."""

    def __init__(self, provider: TracerProvider) -> None:
        if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):  # the plug-in has not made one
            trace.set_tracer_provider(provider)
        self._tracer = provider.get_tracer("litport.litserve")

    def begin(self, works: Sequence[Work]) -> Running | None:
        """Work on these begins; None if none of them came with a trace."""
        pairs = [(work, self._span(work, len(works))) for work in works if "traceparent" in work.headers]
        if not pairs:
            return None
        span = pairs[0][1]
        if len(works) > 1:
            span = self._tracer.start_span(
                "litserve.batch",
                trace.set_span_in_context(span),
                links=[Link(work_span.get_span_context()) for _, work_span in pairs],
                attributes={"litserve.batch_size": len(works)},
            )
            for _, work_span in pairs:
                work_span.add_link(span.get_span_context())
        return Running(pairs, span, context.attach(trace.set_span_in_context(span)))

    def end(self, running: Running | None) -> None:
        """Their last answer is on its way."""
        if running is None:
            return
        context.detach(running.token)
        self._add_steps(running)
        if running.span is not running.pairs[0][1]:
            if any(work.failure is not None and work.failure.status >= 500 for work, _ in running.pairs):
                running.span.set_status(StatusCode.ERROR)
            running.span.end()
        for work, span in running.pairs:
            for step, spent_s in _steps(work):
                span.set_attribute(f"litserve.{step}_s", round(spent_s, 6))
            if work.failure is not None:
                span.set_attribute("http.response.status_code", work.failure.status)
                if work.failure.status >= 500:
                    span.set_attribute("error.type", work.failure.error)
                    span.set_status(StatusCode.ERROR)
            span.end()

    def _add_steps(self, running: Running) -> None:
        work = running.pairs[0][0]
        above = trace.set_span_in_context(running.span)
        at_s = work.begun_s
        steps = [(step, spent_s) for step, spent_s in _steps(work) if spent_s]
        for step, spent_s in steps:
            child = self._tracer.start_span(f"litserve.{step}", above, start_time=_time_ns(at_s))
            if step == steps[-1][0] and work.failure is not None and work.failure.status >= 500:
                child.set_status(StatusCode.ERROR)
            at_s += spent_s
            child.end(_time_ns(at_s))

    def _span(self, work: Work, size: int) -> Span:
        parent = _W3C.extract(work.headers, context.Context())
        queue = self._tracer.start_span("litserve.queue", parent, start_time=_time_ns(work.queued_s))
        queue.end(_time_ns(work.begun_s))
        attributes: dict[str, Any] = {
            "litport.request_id": work.request_id,
            "litserve.batch_size": size,
            "litserve.queue_s": round(work.begun_s - work.queued_s, 6),
        }
        return self._tracer.start_span(
            "litserve.worker", parent, kind=SpanKind.CONSUMER, attributes=attributes, start_time=_time_ns(work.begun_s)
        )


def _steps(work: Work) -> Sequence[tuple[str, float]]:
    return ("decode", work.decode_s), ("predict", work.predict_s), ("encode", work.encode_s)


def _time_ns(monotonic_s: float) -> int:
    # Steps are timed by a clock that nobody sets, and spans are told in time of day.
    return time.time_ns() - time.monotonic_ns() + int(monotonic_s * 1e9)
