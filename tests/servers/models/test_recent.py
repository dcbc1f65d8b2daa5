"""The figures of the last half minute: what they count, what they are over, and where they stand in the status."""

from pathlib import Path

import pytest

from servers.models.recent import Recent
from tests.services.front_door import open_door
from tests.services.tiny_engine import TinyEngine


def test_rates_are_over_the_window_and_forget_what_is_older() -> None:
    recent = Recent(window_s=10, begin_s=0)
    for second in range(100):
        recent.note(second, 0.5, 0.1, input_tokens=3, output_tokens=20)
    told = recent.summary(99.5)
    assert (told["window_s"], told["requests"], told["failed"]) == (10, 10, 0)
    assert (told["requests_per_s"], told["input_tokens_per_s"], told["output_tokens_per_s"]) == (1, 3, 20)
    assert told["duration_s"] == {"p50": 0.5, "p95": 0.5}
    assert told["ttft_s"] == {"p50": 0.1, "p95": 0.1}


def test_where_nothing_ended_rates_are_zero_and_times_unknown() -> None:
    told = Recent(begin_s=0).summary(100)
    assert told == {
        "window_s": 30,
        "requests": 0,
        "failed": 0,
        "requests_per_s": 0,
        "input_tokens_per_s": 0,
        "output_tokens_per_s": 0,
        "duration_s": None,
        "ttft_s": None,
    }


def test_a_young_platform_has_rates_over_its_own_age() -> None:
    recent = Recent(begin_s=100)
    for number in range(8):
        recent.note(100 + number / 2, 0.1)
    assert recent.summary(104)["requests_per_s"] == 2
    assert recent.summary(100.001)["requests_per_s"] == 8, "not eight thousand in the first instant"


def test_more_requests_than_are_remembered_have_rates_over_what_is_remembered() -> None:
    recent = Recent(max_requests=100, begin_s=0)
    for number in range(1000):
        recent.note(100 + number / 50, 0.1, output_tokens=2)
    told = recent.summary(100 + 999 / 50)
    assert told["requests"] == 100
    assert told["window_s"] == pytest.approx(2)
    assert told["requests_per_s"] == pytest.approx(50)
    assert told["output_tokens_per_s"] == pytest.approx(100)


def test_failed_requests_are_counted_and_their_times_left_out() -> None:
    recent = Recent(begin_s=0)
    for number in range(1, 101):
        recent.note(50, number / 100, number / 1000)
        recent.note(50, 0.0001, failed=True)
        recent.note(50, 0.0002, refused=True)
    told = recent.summary(60)
    assert (told["requests"], told["failed"]) == (300, 100)
    assert told["duration_s"] == {"p50": 0.5, "p95": 0.95}
    assert told["ttft_s"] == {"p50": 0.05, "p95": 0.095}


def test_the_status_tells_of_requests_that_ended(tmp_path: Path) -> None:
    with open_door(tmp_path, TinyEngine("one"), TinyEngine("two")) as door:
        stream = {"events": 3, "wait_s": 0.05}
        assert door.client.post("/predict/one", json=stream).status_code == 200
        failing = {"fail": 500, "with": {"error": "no"}}
        assert door.client.post("/predict/one", json=failing).status_code == 500
        # The caller's own faults, told by the model and by the front door, are no failures of the model.
        assert door.client.post("/predict/one", json={"fail": 422, "with": {"detail": "no x"}}).status_code == 422
        slow, late = {"wait_s": 5}, {"X-Request-Timeout": "0.05"}
        assert door.client.post("/predict/one", json=slow, headers=late).status_code == 504
        document = door.client.get("/status").json()
        one, two = (model["recent"] for model in document["models"])
    assert (one["requests"], one["failed"]) == (4, 2)
    assert one["duration_s"]["p50"] > 0.15
    assert 0 < one["ttft_s"]["p50"] < one["duration_s"]["p50"]
    assert two["requests"] == 0
    assert document["hardware"] is None, "nothing samples in this test"
    assert document["metrics_address"] is None
    assert [model["cpu_cores"] for model in document["models"]] == [None, None]
