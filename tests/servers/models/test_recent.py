"""The figures of the last half minute: what they count, what they are over, and where they stand in the status."""

from pathlib import Path

import psutil
import pytest

from servers.gateway import hardware
from servers.models.recent import Recent
from servers.telemetry import Sample
from servers.telemetry.cpu import HostSample, ModelSample
from servers.telemetry.nvml import GpuSample
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
    told = recent.summary(60)
    assert (told["requests"], told["failed"]) == (200, 100)
    assert told["duration_s"] == {"p50": 0.5, "p95": 0.95}
    assert told["ttft_s"] == {"p50": 0.05, "p95": 0.095}


def test_the_status_tells_of_requests_that_ended(tmp_path: Path) -> None:
    with open_door(tmp_path, TinyEngine("one"), TinyEngine("two")) as door:
        stream = {"events": 3, "wait_s": 0.05}
        assert door.client.post("/predict/one", json=stream).status_code == 200
        failing = {"fail": 500, "with": {"error": "no"}}
        assert door.client.post("/predict/one", json=failing).status_code == 500
        document = door.client.get("/status").json()
        one, two = (model["recent"] for model in document["models"])
    assert (one["requests"], one["failed"]) == (2, 1)
    assert one["duration_s"]["p50"] > 0.15
    assert 0 < one["ttft_s"]["p50"] < one["duration_s"]["p50"]
    assert two["requests"] == 0
    assert document["hardware"] is None, "nothing samples in this test"
    assert document["metrics_address"] is None
    assert [model["cpu_cores"] for model in document["models"]] == [None, None]


def sample(t_s: float, cpu_percent: float | None = None, *gpus: GpuSample, **cpu_s: float | None) -> Sample:
    models = {name: ModelSample(1, spent_s, 1, None, None) for name, spent_s in cpu_s.items()}
    return Sample(t_s, models, HostSample(cpu_percent, None, None, None), gpus)


def test_cores_are_what_the_last_interval_took() -> None:
    samples = [sample(0, a=0, b=0), sample(2, a=100, b=1), sample(6, a=106, b=1)]
    assert hardware.cpu_cores(samples) == {"a": 1.5, "b": 0}


def test_cores_are_unknown_where_a_model_is_new_or_its_processes_are() -> None:
    assert hardware.cpu_cores([]) == {}
    assert hardware.cpu_cores([sample(0, a=1)]) == {}
    assert hardware.cpu_cores([sample(0, a=9, c=None), sample(1, a=0.5, b=3, c=1)]) == {}


def test_hardware_is_the_last_sample_with_what_is_unknown_as_null() -> None:
    assert hardware.summary([], None) is None
    told = hardware.summary([sample(0), sample(1, 12.345)], "no driver")
    assert told is not None
    assert (told["cpu_percent"], told["gpus"], told["nvml_error"]) == (12.3, [], "no driver")
    assert told["memory_total_bytes"] == psutil.virtual_memory().total
    assert 0 < told["memory_available_bytes"] < told["memory_total_bytes"]


def test_a_gpu_says_whose_it_is_or_that_it_is_lost() -> None:
    busy = GpuSample(0, "u", "H100", utilization_percent=93, power_w=312.5, shared=False, model="chat")
    told = hardware.summary([sample(1, 1, busy, GpuSample(1, lost=True))], None)
    assert told is not None
    first, second = told["gpus"]
    assert first == {
        "index": 0,
        "name": "H100",
        "utilization_percent": 93,
        "memory_used_bytes": None,
        "memory_total_bytes": None,
        "power_w": 312.5,
        "shared": False,
        "model": "chat",
        "lost": False,
    }
    assert (second["index"], second["lost"], second["utilization_percent"]) == (1, True, None)
