"""What a collector gets of the front door's requests, over the real SDK and a real HTTP server."""

import json
import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.services.front_door import Door, open_door
from tests.services.otlp_collector import Collector, GrpcCollector, Span
from tests.services.polling import wait_until
from tests.services.ports import port_in_use, refusing_port
from tests.services.tiny_engine import TinyEngine

CHAT = "/v1/chat/completions"
CLIENT_TRACE = "0af7651916cd43dd8448eb211c80319c"
CLIENT_SPAN = "b7ad6b7169203331"


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[Door]:
    """One model that works on one request at a time, traced."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in collector.environ.items():
            patch.setenv(name, value)
        folder = tmp_path_factory.mktemp("door")
        with open_door(folder, TinyEngine("org/one"), model={"max_running": 1, "max_waiting": 1}) as door:
            yield door


def _ask(door: Door, trace_id: str, **body: object) -> httpx.Response:
    """Ask as a client whose own trace this is."""
    headers = {"traceparent": f"00-{trace_id}-{CLIENT_SPAN}-01", "x-request-id": f"id-{trace_id[:4]}"}
    return door.client.post(CHAT, json={"model": "org/one", **body}, headers=headers)


def _server_span(collector: Collector, trace_id: str) -> Span:
    return collector.wait_until(lambda span: span.kind == "SERVER" and span.trace_id == trace_id)


def _trace(number: int) -> str:
    return f"{number:032x}"


def test_a_clients_trace_is_taken_over_and_goes_on_to_the_model(door: Door, collector: Collector) -> None:
    response = _ask(door, CLIENT_TRACE)
    span = _server_span(collector, CLIENT_TRACE)
    upstream = collector.wait_for("POST upstream", trace_id=CLIENT_TRACE)
    assert (span.name, span.parent_id) == (f"POST {CHAT}", CLIENT_SPAN)
    assert (upstream.kind, upstream.parent_id) == ("CLIENT", span.id)
    assert response.json()["headers"]["traceparent"] == f"00-{CLIENT_TRACE}-{upstream.id}-01"
    assert span.resource["service.name"] == "litport"
    assert span.attributes == {
        "http.request.method": "POST",
        "http.route": CHAT,
        "url.path": CHAT,
        "client.address": "127.0.0.1",
        "http.response.status_code": 200,
        "litport.request_id": "id-0af7",
        "litport.model": "org/one",
        "litport.key": "anonymous",
    }


def test_a_trace_begins_here_where_the_client_has_none(door: Door, collector: Collector) -> None:
    headers = door.client.post("/predict/org/one", json={"x": 1}).json()["headers"]
    _, trace_id, span_id, flags = headers["traceparent"].split("-")
    span = _server_span(collector, trace_id)
    assert (span.name, span.parent_id) == ("POST /predict", "")
    assert int(flags, 16) & 1, "it is sampled"
    assert collector.wait_for("POST upstream", trace_id=trace_id).id == span_id
    assert "tracestate" not in headers


def test_a_client_that_does_not_sample_is_not_sampled(door: Door, collector: Collector) -> None:
    headers = {"traceparent": f"00-{_trace(99)}-{CLIENT_SPAN}-00"}
    seen = door.client.post(CHAT, json={"model": "org/one"}, headers=headers).json()["headers"]["traceparent"]
    assert seen.startswith(f"00-{_trace(99)}-")
    assert seen.endswith("-00")
    _ask(door, _trace(98))
    _server_span(collector, _trace(98))
    assert _trace(99) not in {span.trace_id for span in collector.spans}


def test_the_wait_for_a_turn_is_a_span_and_a_refusal_tells_its_code(door: Door, collector: Collector) -> None:
    with ThreadPoolExecutor(3) as pool:
        running = pool.submit(_ask, door, _trace(1), wait_s=0.8)
        time.sleep(0.2)
        waiting = pool.submit(_ask, door, _trace(2), wait_s=0)
        time.sleep(0.2)
        assert _ask(door, _trace(3)).status_code == 429
        assert running.result().status_code == waiting.result().status_code == 200
    queue = collector.wait_for("litport.queue", trace_id=_trace(2))
    assert queue.parent_id == _server_span(collector, _trace(2)).id
    assert 0.3 < queue.end_s - queue.begin_s < 0.8
    refused = _server_span(collector, _trace(3))
    assert (refused.attributes["error.type"], refused.is_error) == ("overloaded", False)


def test_an_error_of_the_model_is_one_of_both_spans(door: Door, collector: Collector) -> None:
    assert _ask(door, _trace(4), fail=500, **{"with": {}}).status_code == 500
    span, upstream = _server_span(collector, _trace(4)), collector.wait_for("POST upstream", trace_id=_trace(4))
    assert span.is_error
    assert upstream.is_error
    assert span.attributes["error.type"] == upstream.attributes["error.type"] == "500"


def test_the_first_event_of_a_stream_is_an_event(door: Door, collector: Collector) -> None:
    _ask(door, _trace(5), events=3, wait_s=0.01)
    assert _server_span(collector, _trace(5)).events == ("first event",)


def test_a_client_that_leaves_is_seen(door: Door, collector: Collector) -> None:
    with pytest.raises(httpx.ReadTimeout):
        door.client.post(
            CHAT,
            json={"model": "org/one", "wait_s": 5},
            headers={"traceparent": f"00-{_trace(6)}-{CLIENT_SPAN}-01"},
            timeout=0.3,
        )
    span = _server_span(collector, _trace(6))
    assert span.events == ("client left",)
    assert "http.response.status_code" not in span.attributes


def test_nothing_that_was_asked_or_answered_is_in_a_span(door: Door, collector: Collector) -> None:
    door.client.post("/v1/nonsense-secret?q=secret", json={"model": "org/one", "messages": "secret"})
    _ask(door, _trace(7), messages=[{"role": "user", "content": "secret words"}], fail=400, **{"with": "secret"})
    span = _server_span(collector, _trace(7))
    assert "secret" not in json.dumps([dict(span.attributes), span.events])
    unknown = collector.wait_for("POST other")
    assert unknown.attributes["error.type"] == "unknown_route"


def test_readiness_is_asked_for_without_spans(door: Door, collector: Collector) -> None:
    door.client.get("/ready")
    _ask(door, _trace(8))
    _server_span(collector, _trace(8))
    assert not [span for span in collector.spans if span.attributes.get("url.path") in ("/ready", "/health")]


@pytest.mark.parametrize(
    ("how", "protocol"),
    [("refuses", "grpc"), ("is deaf", "http/protobuf"), ("refuses", "http/protobuf"), ("is deaf", "grpc")],
)
@pytest.mark.long
def test_a_collector_that_is_away_costs_one_line_and_no_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, how: str, protocol: str
) -> None:
    with port_in_use() if how == "is deaf" else refusing_port() as port:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "16")
        monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "8")
        with caplog.at_level(logging.WARNING), open_door(tmp_path, TinyEngine("one")) as door:
            until_s = time.monotonic() + 2
            slowest_s, count = 0.0, 0
            while time.monotonic() < until_s:
                begin_s = time.monotonic()
                assert door.client.post(CHAT, json={"model": "one"}).status_code == 200
                slowest_s = max(slowest_s, time.monotonic() - begin_s)
                count += 1
                time.sleep(0.01)
            begin_s = time.monotonic()
            door.app.close()
            assert time.monotonic() - begin_s < 2
    assert count > 20
    assert slowest_s < 0.8, "a request waits for no export, which takes a second here"
    said = [record.getMessage() for record in caplog.records]
    assert [line for line in said if "traces" in line and "127.0.0.1" in line] == said
    assert len(said) == 1


def test_a_collector_that_comes_back_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with Collector() as collector:
        collector.status = 400
        for name, value in collector.environ.items():
            monkeypatch.setenv(name, value)
        with caplog.at_level(logging.WARNING), open_door(tmp_path, TinyEngine("one")) as door:
            door.client.post(CHAT, json={"model": "one"})
            _wait_for_log(caplog, "are not taken by")
            collector.status = 200
            door.client.post(CHAT, json={"model": "one"})
            collector.wait_for("POST upstream")
            _wait_for_log(caplog, "spans were lost")


def _wait_for_log(caplog: pytest.LogCaptureFixture, text: str) -> None:
    wait_until(lambda: text in caplog.text, 10, problem=lambda: caplog.text)


@pytest.mark.parametrize("kind", [pytest.param(Collector, marks=pytest.mark.long), GrpcCollector])
def test_what_is_left_at_the_end_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Collector]
) -> None:
    with kind() as collector:
        for name, value in (collector.environ | {"OTEL_BSP_SCHEDULE_DELAY": "60000"}).items():
            monkeypatch.setenv(name, value)
        with open_door(tmp_path, TinyEngine("one")) as door:
            door.client.post(CHAT, json={"model": "one"})
            assert collector.spans == []
        assert {f"POST {CHAT}", "POST upstream"} <= {span.name for span in collector.spans}
