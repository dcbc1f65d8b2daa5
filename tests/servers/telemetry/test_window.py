"""What samples say about a window: worked out by hand."""

import json
from typing import Any

import pytest

from servers.telemetry.cpu import HostSample, ModelSample
from servers.telemetry.nvml import GpuProcess, GpuSample, MigSample
from servers.telemetry.sample import Sample
from servers.telemetry.window import summarise

IDLE = HostSample(None, None, None, None)
GPU = GpuSample(0, "GPU-a", "NVIDIA H200", mig=False, memory_total_bytes=1000, shared=False, model="chat")


def test_counters_are_read_at_the_ends_of_the_window() -> None:
    """0.5 of the first second's 2 CPU s, all of the second's 4, a quarter of the third's 8."""
    summary = summarise(_models([0.0, 2.0, 6.0, 14.0]), 0.5, 2.25)
    assert summary["models"]["chat"]["cpu_cores"] == (1 + 4 + 2) / 1.75
    assert (summary["covered_s"], summary["samples"]) == (1.75, 2)


def test_a_window_that_was_not_sampled_to_its_ends_says_so() -> None:
    summary = summarise(_models([0.0, 2.0, 4.0]), -10, 50)
    assert (summary["covered_s"], summary["samples"]) == (2.0, 3)
    assert summary["models"]["chat"]["cpu_cores"] == 2.0


def test_context_switches_between_the_readings_that_have_them() -> None:
    samples = [
        Sample(float(t_s), {"chat": ModelSample(2, 1.0, 10 + t_s, voluntary, 7)}, IDLE, ())
        for t_s, voluntary in enumerate([100, None, 180, None, 200])
    ]
    chat = summarise(samples, 0, 4)["models"]["chat"]
    assert (chat["voluntary_switches_per_s"], chat["involuntary_switches_per_s"]) == (25.0, 0.0)
    assert (chat["max_resident_bytes"], chat["max_processes"]) == (14, 2)


def test_an_unknown_model_is_null_and_not_zero() -> None:
    summary = summarise([Sample(t_s, {"chat": ModelSample(0, *[None] * 4)}, IDLE, ()) for t_s in (0.0, 1.0)], 0, 1)
    assert summary["models"]["chat"] == {
        "cpu_cores": None,
        "max_resident_bytes": None,
        "max_processes": 0,
        "voluntary_switches_per_s": None,
        "involuntary_switches_per_s": None,
        "max_gpu_memory_bytes": None,
    }


def test_the_host_is_weighted_by_time() -> None:
    """The first value speaks of no time; the second of 1 s, half of it inside; the third of 3 s."""
    samples = [
        Sample(0.0, {}, HostSample(None, None, 2, 500_000), ()),
        Sample(1.0, {}, HostSample(80.0, 0.0, 4, 500_000), ()),
        Sample(4.0, {}, HostSample(10.0, 7.0, 10, 3_500_000), ()),
    ]
    host = summarise(samples, 0.5, 4)["host"]
    assert host == {
        "cpu_percent": (0.5 * 80 + 3 * 10) / 3.5,
        "steal_percent": 3 * 7 / 3.5,
        "throttled_s": 3.0,
        "throttled_periods": 7.0,
    }


def test_a_host_without_limits_is_null() -> None:
    host = summarise([Sample(t_s, {}, IDLE, ()) for t_s in (0.0, 1.0)], 0, 1)["host"]
    assert set(host.values()) == {None}


def test_a_machine_without_a_gpu_has_an_empty_list_of_them() -> None:
    assert summarise(_models([0.0, 2.0]), 0, 1)["gpus"] == []


def test_no_sample_at_all_is_no_error() -> None:
    summary = summarise([], 0, 1)
    assert (summary["covered_s"], summary["samples"], summary["models"], summary["gpus"]) == (0.0, 0, {}, [])


def test_a_window_that_ends_before_it_starts_is_refused() -> None:
    with pytest.raises(ValueError, match="got 2 to 1"):
        summarise([], 2, 1)


def test_energy_is_the_difference_of_the_counter() -> None:
    gpu = _gpu([{"energy_j": 1000.0}, {"energy_j": 1300.0}, {"energy_j": None}, {"energy_j": 1700.0}], 0, 3)
    assert gpu["energy_j"] == 700.0
    assert _gpu([{"energy_j": 1000.0}, {"energy_j": 1300.0}], 0.25, 0.75)["energy_j"] == 150.0


def test_energy_over_a_reset_is_unknown_and_elsewhere_it_is_not() -> None:
    counter = [{"energy_j": joules} for joules in (1000.0, 1300.0, 50.0, 250.0)]
    assert _gpu(counter, 0, 3)["energy_j"] is None
    assert _gpu(counter, 0, 1)["energy_j"] == 300.0
    assert _gpu(counter, 2, 3)["energy_j"] == 200.0


def test_energy_of_a_gpu_that_was_lost_on_the_way_is_unknown() -> None:
    lost: list[dict[str, Any]] = [{"energy_j": 1000.0}, {"energy_j": 1300.0}, {"lost": True}]
    assert _gpu(lost, 0, 2)["energy_j"] is None
    assert _gpu(lost, 0, 1)["energy_j"] == 300.0


def test_gauges_are_those_of_the_samples_inside() -> None:
    gpu = _gpu(
        [
            {
                "utilization_percent": 100,
                "power_w": 700.0,
                "memory_used_bytes": 990,
                "throttle_reasons": ("sync_boost",),
            },
            {"utilization_percent": 20, "power_w": 100.0, "memory_used_bytes": 300, "throttle_reasons": ("gpu_idle",)},
            {"utilization_percent": None, "power_w": 300.0, "memory_used_bytes": 500, "temperature_c": 70},
            {"utilization_percent": 40, "power_w": 200.0, "throttle_reasons": ("sw_power_cap", "gpu_idle")},
        ],
        1,
        3,
    )
    assert (gpu["utilization_percent"], gpu["power_w"], gpu["max_memory_used_bytes"]) == (30.0, 200.0, 500)
    assert (gpu["throttle_reasons"], gpu["max_temperature_c"]) == (["gpu_idle", "sw_power_cap"], 70)
    assert (gpu["uuid"], gpu["name"], gpu["memory_total_bytes"]) == ("GPU-a", "NVIDIA H200", 1000)


def test_gpm_speaks_of_the_time_since_the_sample_before() -> None:
    gpu = _gpu([{"sm_util_percent": 99.0}, {"sm_util_percent": 10.0}, {"sm_util_percent": 40.0}], 0.5, 2)
    assert gpu["sm_util_percent"] == (0.5 * 10 + 40) / 1.5
    assert gpu["sm_occupancy_percent"] is None


def test_what_was_never_measured_is_null() -> None:
    gpu = _gpu([{}, {}], 0, 1)
    known = {"index", "uuid", "name", "lost", "mig", "shared", "model", "memory_total_bytes", "mig_instances"}
    assert {key for key, value in gpu.items() if value is not None} == known


@pytest.mark.parametrize(
    ("second", "shared", "model"),
    [
        ({}, False, "chat"),
        ({"model": "embed"}, False, None),
        ({"model": None, "shared": True}, True, None),
        ({"model": None, "shared": None}, False, None),
        ({"model": None, "shared": None, "lost": True}, False, "chat"),
    ],
    ids=["one model's", "one after the other", "shared", "unknown for a while", "lost"],
)
def test_a_duty_cycle_is_given_to_a_model_only_if_it_was_its_own_all_along(
    second: dict[str, Any], shared: bool, model: str | None
) -> None:
    gpu = _gpu([{}, second], 0, 1)
    assert (gpu["shared"], gpu["model"], gpu["lost"]) == (shared, model, "lost" in second)


def test_a_models_gpu_memory_adds_up_over_its_processes_and_gpus() -> None:
    def gpus(*memory_bytes: int | None) -> tuple[GpuSample, ...]:
        processes = [(GpuProcess(pid, "chat", memory),) for pid, memory in enumerate(memory_bytes)]
        return tuple(GpuSample(index, processes=users) for index, users in enumerate(processes))

    model = {"chat": ModelSample(1, 1.0, 1, None, None)}
    samples = [Sample(0.0, model, IDLE, gpus(10, 20)), Sample(1.0, model, IDLE, gpus(500, None))]
    assert summarise(samples, 0, 1)["models"]["chat"]["max_gpu_memory_bytes"] == 30


def test_instances_keep_their_own_memory() -> None:
    cut = [{"mig": True, "mig_instances": (MigSample(2, "MIG-z", used, 40, ()),)} for used in (10, 30)]
    assert _gpu(cut, 0, 1)["mig_instances"] == [
        {"index": 2, "uuid": "MIG-z", "max_memory_used_bytes": 30, "memory_total_bytes": 40}
    ]


def _models(cpu_s: list[float]) -> list[Sample]:
    """A second apart."""
    return [
        Sample(float(t_s), {"chat": ModelSample(1, used, 5, None, None)}, IDLE, ()) for t_s, used in enumerate(cpu_s)
    ]


def _gpu(changes: list[dict[str, Any]], start_s: float, end_s: float) -> dict[str, Any]:
    """The summary of one GPU, sampled once a second."""
    samples = [
        Sample(float(t_s), {}, IDLE, (GpuSample(**{**vars(GPU), **change}),)) for t_s, change in enumerate(changes)
    ]
    [gpu] = summarise(samples, start_s, end_s)["gpus"]
    assert json.loads(json.dumps(gpu)) == gpu
    assert isinstance(gpu, dict)
    return gpu
