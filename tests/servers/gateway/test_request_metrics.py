"""What is counted of requests: each once, under labels that no caller can choose, and with the tokens they name."""

import time
from collections.abc import Iterator
from pathlib import Path

import prometheus_client
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from servers.gateway.histogram import Histogram
from tests.services.front_door import Door, open_door
from tests.services.page_reader import values
from tests.services.tiny_engine import TinyEngine

SAID = {"usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}}


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    with open_door(tmp_path, TinyEngine("one"), TinyEngine("two")) as door:
        yield door


def series(door: Door, least: int = 1) -> dict[str, float]:
    """The page, once so many requests are counted: they are when the answer has gone out."""
    for _ in range(100):
        found = values(generate_latest(door.app.metrics).decode())
        if sum(value for name, value in found.items() if name.startswith("litport_requests_total")) >= least:
            return found
        time.sleep(0.01)
    raise AssertionError(f"fewer than {least} requests were counted")


def labels(**pairs: str) -> str:
    return str(sorted(pairs.items()))


def test_requests_are_told_apart_by_model_route_status_and_key(door: Door) -> None:
    for name, path in (("one", "/v1/chat/completions"), ("two", "/v1/chat/completions"), ("one", "/v1/responses")):
        assert door.client.post(path, json={"model": name}).status_code == 200
    door.client.post("/predict/one", json={"fail": 418, "with": {}})
    door.client.get("/v1/models/one")
    door.client.post("/v1/chat/completions", json={"model": "three"})
    door.client.get("/health")
    found = series(door, 6)
    counted = {name: value for name, value in found.items() if name.startswith("litport_requests_total")}
    anybody = {"key": "anonymous"}
    assert counted == {
        "litport_requests_total" + labels(model=model, route=route, status=status, **anybody): 1
        for model, route, status in (
            ("one", "/v1/chat/completions", "200"),
            ("two", "/v1/chat/completions", "200"),
            ("one", "/v1/responses", "200"),
            ("one", "/predict", "418"),
            ("", "/v1/models/{model}", "200"),
            ("", "/v1/chat/completions", "404"),
        )
    }
    assert found["litport_rejections_total" + labels(model="", code="model_not_found")] == 1
    assert found["litport_request_duration_seconds_count" + labels(model="one")] == 3
    assert found["litport_upstream_duration_seconds_count" + labels(model="one")] == 3
    assert found["litport_queue_duration_seconds_count" + labels(model="two")] == 1


def test_no_caller_makes_series(door: Door) -> None:
    before = len(series(door, 0))
    for number in range(20):
        door.client.get(f"/nowhere/{number}", headers={"x-request-id": str(number)})
        door.client.post(f"/predict/none-{number}", json={})
        door.client.post("/v1/completions", json={"model": f"none-{number}"})
        door.client.get(f"/v1/models/none-{number}")
        door.client.request(f"M{number}", "/v1/models")
    assert len(series(door, 80)) - before <= 9


def test_a_stream_has_a_first_token_and_gaps_and_another_answer_has_none(door: Door) -> None:
    door.client.post("/v1/chat/completions", json={"model": "one", "events": 5, "wait_s": 0.03})
    door.client.post("/v1/chat/completions", json={"model": "two"})
    found = series(door, 2)
    one, two = labels(model="one"), labels(model="two")
    assert found["litport_time_to_first_token_seconds_count" + one] == 1
    assert found["litport_inter_chunk_duration_seconds_count" + one] == 5  # the last is [DONE]
    # The first event waits for the answer's head to be sent, and so may be passed on a little later than it came.
    assert 0.12 <= found["litport_inter_chunk_duration_seconds_sum" + one] < 2
    whole_s = found["litport_request_duration_seconds_sum" + one]
    assert found["litport_time_to_first_token_seconds_sum" + one] < whole_s - 0.14
    assert found["litport_time_to_first_token_seconds_count" + two] == 0
    assert found["litport_inter_chunk_duration_seconds_count" + two] == 0


def test_tokens_are_those_that_the_answer_names(door: Door) -> None:
    door.client.post("/v1/chat/completions", json={"model": "one", "fail": 200, "with": SAID})
    door.client.post("/v1/chat/completions", json={"model": "two"})
    found = series(door, 2)
    assert found["litport_tokens_total" + labels(model="one", direction="input", key="anonymous")] == 11
    assert found["litport_tokens_total" + labels(model="one", direction="output", key="anonymous")] == 7
    assert "litport_tokens_total" + labels(model="two", direction="input", key="anonymous") not in found


def test_keys_are_told_by_name_and_a_wrong_one_by_none(tmp_path: Path) -> None:
    with open_door(tmp_path, TinyEngine("one"), auth={"api_keys": ["right-key-of-some-length"]}) as door:
        body = {"model": "one"}
        for key in ("right-key-of-some-length", "wrong"):
            door.client.post("/v1/chat/completions", json=body, headers={"authorization": f"Bearer {key}"})
        found = series(door, 2)
    route = {"route": "/v1/chat/completions"}
    assert found["litport_requests_total" + labels(model="one", status="200", key="key-1", **route)] == 1
    assert found["litport_requests_total" + labels(model="", status="401", key="", **route)] == 1
    assert found["litport_rejections_total" + labels(model="", code="invalid_api_key")] == 1
    assert not [name for name in found if "right-key" in name]


def test_states_queues_and_canaries_are_told(tmp_path: Path) -> None:
    limits = {"max_running": 3, "max_waiting": 5, "canary_interval_s": 0.1}
    with open_door(tmp_path, TinyEngine("one"), model=limits) as door:
        time.sleep(0.5)
        found = series(door, 0)
    one = labels(model="one")
    assert found["litport_model_state" + labels(model="one", state="ready")] == 1
    assert found["litport_model_state" + labels(model="one", state="failed")] == 0
    assert found["litport_model_transitions_total" + labels(model="one", state="ready")] == 1
    assert found["litport_model_start_seconds" + labels(model="one", phase="load")] > 0
    assert found["litport_canaries_total" + labels(model="one", result="ok")] >= 1
    assert found["litport_canary_duration_seconds_count" + one] >= 1
    assert found["litport_canary_duration_seconds_sum" + one] > 0
    assert found["litport_requests_running_max" + one] == 3
    assert found["litport_requests_waiting_max" + one] == 5
    assert found["litport_requests_running" + one] == 0


def test_the_page_of_a_histogram_is_that_of_prometheus_client() -> None:
    bounds_s = (0.001, 0.5, 1)
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    histogram = Histogram("litport_a_seconds", "Help", bounds_s)
    ours.register(histogram)
    reference = prometheus_client.Histogram("litport_a_seconds", "Help", ["model"], buckets=bounds_s, registry=theirs)
    assert generate_latest(ours) == generate_latest(theirs)
    for model, duration_s in (("b", 0.0005), ("a", 0.001), ("a", 0.0011), ("b", 1), ("b", 7.25)):
        histogram.of(model).observe(duration_s)
        reference.labels(model).observe(duration_s)
    assert generate_latest(ours) == generate_latest(theirs)
