"""The front door's spans of a request: the whole, the wait for a turn, and the part within the model's process.

The front door's spans join the client's trace, and the model's process joins them. They hold no content of requests and
answers. This module is imported only where traces are on.
"""

import time
from collections.abc import Mapping

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from servers.gateway.request import Request
from servers.telemetry import otlp

_W3C = TraceContextTextMapPropagator()
# A shorter wait has no span: the turn was free.
_MIN_QUEUE_NS = 1_000_000


class Spans:
    """Begins the spans of each request; `close` sends the last ones."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("litport.gateway")

    def begin(self, request: Request, route: str) -> "RequestSpan":
        """The request has come; `route` is the route's name in metrics."""
        return RequestSpan(self._tracer, request, route)

    def close(self) -> None:
        """Send the last spans; no span begins after this."""
        otlp.shut_down(self._provider)


class RequestSpan:
    """The spans of one request."""

    def __init__(self, tracer: Tracer, request: Request, route: str) -> None:
        self._tracer = tracer
        self._begin_ns = time.time_ns()
        self._method = request.method
        attributes = {
            "http.request.method": request.method,
            "http.route": route,
            "url.path": request.path[:200],
            "litport.request_id": request.id,
        }
        if request.client is not None:
            attributes["client.address"] = request.client
        self._span = tracer.start_span(
            f"{request.method} {route}",
            context=_W3C.extract(request.headers),
            kind=SpanKind.SERVER,
            attributes=attributes,
            start_time=self._begin_ns,
        )
        self._context = set_span_in_context(self._span)
        self._upstream: Span | None = None
        self._queued_ns: int | None = None
        self._error: str | None = None

    def queue(self) -> None:
        """The request waits for its turn from now on."""
        self._queued_ns = time.time_ns()

    def admit(self) -> None:
        """The request has its turn, or will not get one."""
        if self._queued_ns is not None:
            now_ns = time.time_ns()
            if now_ns - self._queued_ns > _MIN_QUEUE_NS:
                span = self._tracer.start_span("litport.queue", self._context, start_time=self._queued_ns)
                span.end(now_ns)
            self._queued_ns = None

    def send(self, path: str) -> Mapping[str, str]:
        """The request goes to the model's process under `path`; returns the headers by which that joins the trace."""
        attributes = {"http.request.method": self._method, "url.path": path[:200]}
        self._upstream = self._tracer.start_span(
            f"{self._method} upstream", self._context, kind=SpanKind.CLIENT, attributes=attributes
        )
        headers: dict[str, str] = {}
        _W3C.inject(headers, set_span_in_context(self._upstream))
        return headers

    def fail(self, code: str | None) -> None:
        """The front door itself answers with an error."""
        self._error = code

    def receive(self, status: int | None) -> None:
        """The answer of the model's process has come with this status, or will not come (None)."""
        if self._upstream is not None:
            if status is not None:
                self._upstream.set_attribute("http.response.status_code", status)
            if status is None or status >= 400:
                self._upstream.set_attribute("error.type", "no answer" if status is None else str(status))
                self._upstream.set_status(StatusCode.ERROR)
            self._upstream.end()

    def end(self, status: int | None, model: str, key: str, first_event_s: float | None) -> None:
        """The request is over: its status (None: the client left before), and the seconds until the first event."""
        self.admit()
        span = self._span
        if model:
            span.set_attribute("litport.model", model)
        if key:
            span.set_attribute("litport.key", key)
        if first_event_s is not None:
            span.add_event("first event", timestamp=self._begin_ns + int(first_event_s * 1e9))
        if status is None:
            span.add_event("client left")
        else:
            span.set_attribute("http.response.status_code", status)
        if self._error is not None or (status is not None and status >= 500):
            span.set_attribute("error.type", self._error or str(status))
            # A client's mistake is no error of the server; a stream that broke off after its 200 is.
            if status is None or not 400 <= status < 500:
                span.set_status(StatusCode.ERROR)
        span.end()
