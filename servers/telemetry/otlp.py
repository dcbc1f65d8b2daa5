"""The OpenTelemetry SDK, set up to send spans to a collector: one provider a process.

Spans leave in batches from a thread of their own, so no request waits for them. A collector that is away costs spans
and one line in the log; it never costs a request, a flood of lines, or more than a moment at the end.
"""

import logging
import os
import threading
from collections.abc import Sequence

from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from servers.telemetry import tracing

_log = logging.getLogger("litport.traces")

# The SDK's own default is five seconds, which a process that is told to end does not have.
_SCHEDULE_MS = 500
_TIMEOUT_S = 2.0
_END_S = 1.0


def provider(process: str, level: int = logging.WARNING) -> TracerProvider:
    """A source of tracers for this process, which its spans name as `litport.process`.

    That the collector is away is logged on `level`. Raises UserError when the variables ask for a protocol that nobody
    here speaks.
    """
    tracing.quieten()
    attributes = {"litport.process": process}
    if named := tracing.service(os.environ):
        attributes[SERVICE_NAME] = named["OTEL_SERVICE_NAME"]
    made = TracerProvider(resource=Resource.create(attributes), shutdown_on_exit=False)
    delay_ms = None if os.environ.get("OTEL_BSP_SCHEDULE_DELAY") else _SCHEDULE_MS
    exporter = _Terse(_exporter(), tracing.endpoint(os.environ), level)
    made.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=delay_ms))
    return made


def shut_down(made: TracerProvider) -> None:
    """Send what is left, for at most a second."""
    # In a thread, since the SDK waits for half a minute and cannot be told otherwise.
    ending = threading.Thread(target=made.shutdown, name="traces-end", daemon=True)
    ending.start()
    ending.join(_END_S)


class _Terse(SpanExporter):
    """Says once that the collector does not take spans, and once that it does again."""

    def __init__(self, exporter: SpanExporter, endpoint: str, level: int) -> None:
        self._exporter = exporter
        self._endpoint = endpoint
        self._level = level
        self._lost: int | None = None

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch."""
        try:
            result = self._exporter.export(spans)
        except Exception as problem:  # a bug in an exporter must not end the thread that it runs in
            _log.debug("spans could not be sent: %r", problem)
            result = SpanExportResult.FAILURE
        if result is SpanExportResult.SUCCESS:
            if self._lost is not None:
                _log.log(self._level, "traces are taken by %s again; %d spans were lost", self._endpoint, self._lost)
            self._lost = None
        elif self._lost is None:
            self._lost = len(spans)
            _log.log(self._level, "traces are not taken by %s; spans are lost until it answers", self._endpoint)
        else:
            self._lost += len(spans)
        return result

    def shutdown(self) -> None:
        """Let go of the connection."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing is held back here."""
        return self._exporter.force_flush(timeout_millis)


def _exporter() -> SpanExporter:
    timeouts = ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT")
    timeout_s = None if any(os.environ.get(name) for name in timeouts) else _TIMEOUT_S
    # Everything else (address, headers, certificates, compression) they read from the environment themselves.
    if tracing.protocol(os.environ) == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter

        return GrpcExporter(timeout=timeout_s)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter

    return HttpExporter(timeout=timeout_s)
