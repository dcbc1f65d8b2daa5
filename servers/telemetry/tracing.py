"""Whether OpenTelemetry traces are on, and the environment variables with which a child process sends its spans.

The standard `OTEL_*` variables turn traces on and name the collector, as in any other program; Litport has no settings
for that. This module does not import the SDK (`otlp` does), so a platform without a collector does not load it.
"""

import logging
from collections.abc import Mapping
from urllib.parse import quote

from configs.errors import UserError

PROTOCOLS = ("grpc", "http/protobuf")

_BASE = "OTEL_EXPORTER_OTLP_ENDPOINT"
_TRACES = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
# A longer export would delay the end of its process. In seconds, as the SDK reads it.
_TIMEOUT_S = "2"
# These write a line for each attempt and each lost span, for as long as the collector is down.
_NOISY_LOGGERS = ("opentelemetry.exporter", "opentelemetry.sdk._shared_internal")


def is_on(environ: Mapping[str, str]) -> bool:
    """Whether these variables name a collector and none of them turns traces off."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    if "otlp" not in environ.get("OTEL_TRACES_EXPORTER", "otlp").split(","):
        return False
    return bool(environ.get(_TRACES) or environ.get(_BASE))


def protocol(environ: Mapping[str, str]) -> str:
    """The protocol of the collector; the SDK's default is gRPC. Raises UserError for an unknown one."""
    for name in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if value := environ.get(name):
            if value not in PROTOCOLS:
                raise UserError(f"{name}: expected {' or '.join(PROTOCOLS)}, got {value!r}")
            return value
    return "grpc"


def endpoint(environ: Mapping[str, str]) -> str:
    """The collector's endpoint for traces: an address for gRPC, a URL with its path for HTTP."""
    if traces := environ.get(_TRACES):
        return traces
    base = environ[_BASE]
    return base if protocol(environ) == "grpc" else f"{base.rstrip('/')}/v1/traces"


def service(environ: Mapping[str, str]) -> Mapping[str, str]:
    """The variable that names the service `litport`; empty where the user names it."""
    has_name = environ.get("OTEL_SERVICE_NAME") or "service.name=" in environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    return {} if has_name else {"OTEL_SERVICE_NAME": "litport"}


def child_environ(model: str, environ: Mapping[str, str]) -> Mapping[str, str]:
    """The variables that a child which serves `model` needs, in addition to its own `environ`.

    They put the model's name on its spans, and limit how long a collector that is down delays its end.
    """
    if not is_on(environ):
        # vLLM reads this one variable only, and none of those that turn traces off.
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
    """Silence the SDK's log about a collector that is down; the front door logs that once for all processes."""
    for name in _NOISY_LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
