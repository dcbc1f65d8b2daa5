"""A collector of traces small enough for a test: OTLP over HTTP with protobuf, or over gRPC, decoded and kept."""

import gzip
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

import grpc  # type: ignore[import-untyped] # it ships no types
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.trace.v1 import trace_pb2


@dataclass(frozen=True)
class Span:
    """A span as it came; ids in hexadecimal, times in seconds since 1970, `links` the ids of spans."""

    name: str
    kind: str
    trace_id: str
    id: str
    parent_id: str
    begin_s: float
    end_s: float
    attributes: Mapping[str, Any]
    events: tuple[str, ...]
    links: tuple[str, ...]
    is_error: bool
    resource: Mapping[str, Any]


class Collector:
    """Takes traces over HTTP on a free port of the loopback interface while entered, and answers with `status`."""

    protocol = "http/protobuf"

    def __init__(self) -> None:
        self.status = 200
        self._spans: list[Span] = []
        self._come = threading.Condition()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    @property
    def url(self) -> str:
        """The base of its address, without the path of traces."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def environ(self) -> dict[str, str]:
        """The variables that make a program send its traces here, soon."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.url,
            "OTEL_EXPORTER_OTLP_PROTOCOL": self.protocol,
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }

    @property
    def spans(self) -> list[Span]:
        """All that came, in this order."""
        with self._come:
            return list(self._spans)

    def take(self, request: ExportTraceServiceRequest) -> None:
        """Keep what a program has sent."""
        spans = [
            _span(span, _values(group.resource.attributes))
            for group in request.resource_spans
            for scope in group.scope_spans
            for span in scope.spans
        ]
        with self._come:
            self._spans += spans
            self._come.notify_all()

    def wait_for(self, name: str, *, trace_id: str | None = None, timeout_s: float = 15) -> Span:
        """The first span of this name, in this trace if one is given, as soon as it is there."""
        return self.wait_until(lambda span: span.name == name and trace_id in (None, span.trace_id), timeout_s)

    def wait_until(self, fits: Callable[[Span], bool], timeout_s: float = 15) -> Span:
        """The first span that fits, as soon as it is there; TimeoutError names those that came."""
        deadline_s = time.monotonic() + timeout_s
        with self._come:
            while True:
                for span in self._spans:
                    if fits(span):
                        return span
                if not self._come.wait(deadline_s - time.monotonic()):
                    raise TimeoutError(
                        f"it never came; the last are {[(span.name, span.trace_id) for span in self._spans[-20:]]}"
                    )

    def __enter__(self) -> "Collector":
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class GrpcCollector(Collector):
    """The same over gRPC."""

    protocol = "grpc"

    def __init__(self) -> None:
        super().__init__()
        self._pool = ThreadPoolExecutor(2)
        self._grpc = grpc.server(self._pool)
        add_TraceServiceServicer_to_server(_Servicer(self), self._grpc)  # type: ignore[no-untyped-call] # generated
        self._port = self._grpc.add_insecure_port("127.0.0.1:0")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> "GrpcCollector":
        super().__enter__()
        self._grpc.start()
        return self

    def __exit__(self, *exception: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._grpc.stop(1).wait()
        self._pool.shutdown()
        super().__exit__(*exception)


class _Servicer(TraceServiceServicer):
    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def Export(self, request: ExportTraceServiceRequest, context: object) -> ExportTraceServiceResponse:  # noqa: N802
        self._collector.take(request)
        return ExportTraceServiceResponse()


def _handler(collector: Collector) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 5

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers["Content-Encoding"] == "gzip":
                body = gzip.decompress(body)
            if self.path == "/v1/traces" and collector.status == 200:
                collector.take(ExportTraceServiceRequest.FromString(body))
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(collector.status if self.path == "/v1/traces" else 404)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's name
            return

    return Handler


def _span(span: trace_pb2.Span, resource: Mapping[str, Any]) -> Span:
    return Span(
        name=span.name,
        kind=trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        trace_id=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        begin_s=span.start_time_unix_nano / 1e9,
        end_s=span.end_time_unix_nano / 1e9,
        attributes=_values(span.attributes),
        events=tuple(event.name for event in span.events),
        links=tuple(link.span_id.hex() for link in span.links),
        is_error=span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
        resource=resource,
    )


def _values(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}
