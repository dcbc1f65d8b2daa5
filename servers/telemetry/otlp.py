"""The OpenTelemetry SDK, set up to send spans to a collector: one provider a process.

A thread of its own sends spans in batches, so no request waits for them. When the collector is down, spans are lost and
the log gets one line; requests are not affected, and the process ends at most a second later.
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

# The SDK's own default of five seconds is too long for a process that shall end.
_SCHEDULE_MS = 500
_TIMEOUT_S = 2.0
_END_S = 1.0


def provider(process: str, level: int = logging.WARNING) -> TracerProvider:
    """A source of tracers; each span has the attribute `litport.process` with this value.

    Logs on `level` that the collector is down. Raises UserError when the variables name an unknown protocol.
    """
    tracing.quieten()
    attributes = {"litport.process": process}
    if service := tracing.service(os.environ):
        attributes[SERVICE_NAME] = service["OTEL_SERVICE_NAME"]
    tracer_provider = TracerProvider(resource=Resource.create(attributes), shutdown_on_exit=False)
    delay_ms = None if os.environ.get("OTEL_BSP_SCHEDULE_DELAY") else _SCHEDULE_MS
    exporter = _Terse(_exporter(), tracing.endpoint(os.environ), level)
    tracer_provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=delay_ms))
    return tracer_provider


def shut_down(tracer_provider: TracerProvider) -> None:
    """Send the remaining spans, for at most a second."""
    # In a thread, as the SDK waits for half a minute and has no option for less.
    ending = threading.Thread(target=tracer_provider.shutdown, name="traces-end", daemon=True)
    ending.start()
    ending.join(_END_S)


class _Terse(SpanExporter):
    """Logs once when the collector stops taking spans, and once when it takes them again."""

    def __init__(self, exporter: SpanExporter, endpoint: str, level: int) -> None:
        self._exporter = exporter
        self._endpoint = endpoint
        self._level = level
        self._lost_spans: int | None = None

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch."""
        try:
            result = self._exporter.export(spans)
        except Exception as problem:  # a bug in an exporter must not end the thread that it runs in
            _log.debug("spans could not be sent: %r", problem)
            result = SpanExportResult.FAILURE
        if result is SpanExportResult.SUCCESS:
            if self._lost_spans is not None:
                _log.log(
                    self._level, "traces are taken by %s again; %d spans were lost", self._endpoint, self._lost_spans
                )
            self._lost_spans = None
        elif self._lost_spans is None:
            self._lost_spans = len(spans)
            _log.log(self._level, "traces are not taken by %s; spans are lost until it answers", self._endpoint)
        else:
            self._lost_spans += len(spans)
        return result

    def shutdown(self) -> None:
        """Close the connection."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Flush the exporter; this class keeps no spans itself."""
        return self._exporter.force_flush(timeout_millis)


def _exporter() -> SpanExporter:
    timeouts = ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT")
    timeout_s = None if any(os.environ.get(name) for name in timeouts) else _TIMEOUT_S
    # The exporters read everything else (address, headers, certificates, compression) from the environment.
    if tracing.protocol(os.environ) == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter

        return GrpcExporter(timeout=timeout_s)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter

    return HttpExporter(timeout=timeout_s)
