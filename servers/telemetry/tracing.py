"""Whether OpenTelemetry traces are on, and what a child process must be told so that its spans join them.

Traces have no settings of their own: the standard `OTEL_*` variables turn them on and say where they go, for us as for
any other program. Nothing here imports the SDK (`otlp` does), so a platform without a collector pays nothing for it.
"""

import logging
from collections.abc import Mapping
from urllib.parse import quote

from configs.errors import UserError

PROTOCOLS = ("grpc", "http/protobuf")

_BASE = "OTEL_EXPORTER_OTLP_ENDPOINT"
_TRACES = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
# An export that is tried for longer would hold up the end of its process. In seconds, as the SDK reads it.
_TIMEOUT_S = "2"
# They write a line at each attempt and each lost span, for as long as the collector is away.
_TALKATIVE = ("opentelemetry.exporter", "opentelemetry.sdk._shared_internal")


def is_on(environ: Mapping[str, str]) -> bool:
    """Whether these variables name a collector, and none of them turns traces off."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    if "otlp" not in environ.get("OTEL_TRACES_EXPORTER", "otlp").split(","):
        return False
    return bool(environ.get(_TRACES) or environ.get(_BASE))


def protocol(environ: Mapping[str, str]) -> str:
    """How the collector is spoken to; the SDK's default is gRPC. Raises UserError for one that nobody here speaks."""
    for name in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if chosen := environ.get(name):
            if chosen not in PROTOCOLS:
                raise UserError(f"{name}: expected {' or '.join(PROTOCOLS)}, got {chosen!r}")
            return chosen
    return "grpc"


def endpoint(environ: Mapping[str, str]) -> str:
    """Where traces go: an address for gRPC, a URL with its path for HTTP."""
    if own := environ.get(_TRACES):
        return own
    base = environ[_BASE]
    return base if protocol(environ) == "grpc" else f"{base.rstrip('/')}/v1/traces"


def service(environ: Mapping[str, str]) -> Mapping[str, str]:
    """The variable that names the service `litport`, unless the user has named it."""
    named = environ.get("OTEL_SERVICE_NAME") or "service.name=" in environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    return {} if named else {"OTEL_SERVICE_NAME": "litport"}


def child_environ(model: str, environ: Mapping[str, str]) -> Mapping[str, str]:
    """The variables that a child which serves `model` needs beside `environ`, its own.

    Its spans then tell the model, and a collector that does not answer cannot keep it from ending.
    """
    if not is_on(environ):
        # vLLM looks at this one variable only, whatever turns traces off.
        return {_TRACES: ""} if environ.get(_TRACES) else {}
    attributes = [environ.get("OTEL_RESOURCE_ATTRIBUTES", ""), f"litport.model={quote(model, safe='')}"]
    timeout = {} if environ.get("OTEL_EXPORTER_OTLP_TIMEOUT") else {"OTEL_EXPORTER_OTLP_TIMEOUT": _TIMEOUT_S}
    return {
        **service(environ),
        **timeout,
        "OTEL_RESOURCE_ATTRIBUTES": ",".join(filter(None, attributes)),
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": protocol(environ),  # the only one of the two that vLLM reads
    }


def quieten() -> None:
    """Keep the SDK from telling in this process what the front door tells once: that the collector is away."""
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.CRITICAL)
