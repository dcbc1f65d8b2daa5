"""The window of a result has everything that the sampler's summary says, and nothing else."""

import msgspec

from benchmarks.analysis.hardware import Sample, window_of
from servers.telemetry import Sample as Reading
from servers.telemetry.cpu import HostSample, ModelSample
from servers.telemetry.nvml import GpuProcess, GpuSample, MigSample
from servers.telemetry.window import summarise


def reading(t_s: float) -> Reading:
    processes = (GpuProcess(7, "model", 2**20),)
    card = GpuSample(
        0,
        uuid="GPU-1",
        name="a card",
        mig=True,
        utilization_percent=80,
        memory_used_bytes=2**30,
        power_w=300.5,
        energy_j=1000.0 * t_s,
        temperature_c=61,
        throttle_reasons=("sw_power_cap",),
        processes=processes,
        mig_instances=(MigSample(1, "MIG-1", 2**20, 2**30, processes),),
    )
    return Reading(t_s, {"model": ModelSample(4, t_s, 2**30, 10, 3)}, HostSample(40.0, 0.0, 1, 2000), (card,))


def test_a_window_is_the_summary_of_the_sampler() -> None:
    summary = {**summarise([reading(1.0), reading(2.0), reading(3.0)], 1.5, 2.5), "nvml_error": None}
    assert summary["gpus"][0]["mig_instances"]
    assert msgspec.to_builtins(window_of(summary)) == summary


def test_a_sample_has_all_that_was_read() -> None:
    taken = reading(1.0)
    sample = Sample(taken.t_s, dict(taken.models), taken.host, taken.gpus)
    assert msgspec.convert(msgspec.json.decode(msgspec.json.encode(sample)), Sample) == sample
    assert sample.rung == taken.models["model"]
