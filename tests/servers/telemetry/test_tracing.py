"""What the OpenTelemetry variables turn on, and what a child gets of them."""

import subprocess
import sys
from collections.abc import Mapping

import pytest

from configs.errors import UserError
from servers.telemetry import tracing


@pytest.mark.parametrize(
    ("environ", "on"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:4317"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x:4317"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:4317", "OTEL_SDK_DISABLED": "True"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:4317", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:4317", "OTEL_TRACES_EXPORTER": "console,otlp"}, True),
        ({"OTEL_SERVICE_NAME": "mine"}, False),
    ],
)
def test_the_standard_variables_turn_traces_on(environ: Mapping[str, str], on: bool) -> None:
    assert tracing.is_on(environ) is on


def test_the_endpoint_of_traces_is_made_as_the_sdk_makes_it() -> None:
    base = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:1/"}
    assert tracing.endpoint(base) == "http://x:1/"
    assert tracing.endpoint(base | {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}) == "http://x:1/v1/traces"
    own = base | {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://y:2/here"}
    assert tracing.endpoint(own | {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}) == "http://y:2/here"


def test_a_protocol_that_is_not_spoken_is_refused_by_name() -> None:
    with pytest.raises(UserError, match="OTEL_EXPORTER_OTLP_PROTOCOL: expected grpc or http/protobuf, got 'http/json'"):
        tracing.protocol({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"})


def test_a_child_is_told_its_model_and_keeps_what_the_user_said() -> None:
    on = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:1", "OTEL_RESOURCE_ATTRIBUTES": "a=b"}
    assert tracing.child_environ("org/one two", on) == {
        "OTEL_SERVICE_NAME": "litport",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "2",
        "OTEL_RESOURCE_ATTRIBUTES": "a=b,litport.model=org%2Fone%20two",
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc",
    }
    named = on | {"OTEL_SERVICE_NAME": "mine", "OTEL_EXPORTER_OTLP_TIMEOUT": "9"}
    assert not {"OTEL_SERVICE_NAME", "OTEL_EXPORTER_OTLP_TIMEOUT"} & tracing.child_environ("m", named).keys()
    assert tracing.child_environ("m", {}) == {}


def test_the_sdk_is_not_even_imported_without_a_collector() -> None:
    program = (
        "import sys, servers.platform.serve; print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.strip() == "[]"
