"""What the status says of the machine: how busy the host, its GPUs and the processes of each model are."""

import msgspec
import psutil

from servers.gateway.status import cpu_cores, hardware
from servers.telemetry import Sample
from servers.telemetry.cpu import HostSample, ModelSample
from servers.telemetry.nvml import GpuSample


def sample(t_s: float, cpu_percent: float | None = None, *gpus: GpuSample, **cpu_s: float | None) -> Sample:
    models = {name: ModelSample(1, spent_s, 1, None, None) for name, spent_s in cpu_s.items()}
    return Sample(t_s, models, HostSample(cpu_percent, None, None, None), gpus)


def test_cores_are_what_the_last_interval_took() -> None:
    samples = [sample(0, a=0, b=0), sample(2, a=100, b=1), sample(6, a=106, b=1)]
    assert cpu_cores(samples) == {"a": 1.5, "b": 0}


def test_cores_are_unknown_where_a_model_is_new_or_its_processes_are() -> None:
    assert cpu_cores([]) == {}
    assert cpu_cores([sample(0, a=1)]) == {}
    assert cpu_cores([sample(0, a=9, c=None), sample(1, a=0.5, b=3, c=1)]) == {}


def test_hardware_is_the_last_sample_with_what_is_unknown_as_null() -> None:
    assert hardware([], None) is None
    host = hardware([sample(0), sample(1, 12.345)], "no driver")
    assert host is not None
    assert (host.cpu_percent, host.gpus, host.nvml_error) == (12.3, [], "no driver")
    assert host.memory_total_bytes == psutil.virtual_memory().total
    assert 0 < host.memory_available_bytes < host.memory_total_bytes


def test_a_gpu_says_whose_it_is_or_that_it_is_lost() -> None:
    busy = GpuSample(0, "u", "H100", utilization_percent=93, power_w=312.5, shared=False, model="chat")
    host = hardware([sample(1, 1, busy, GpuSample(1, lost=True))], None)
    assert host is not None
    first, second = host.gpus
    assert msgspec.to_builtins(first) == {
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
    assert (second.index, second.lost, second.utilization_percent) == (1, True, None)
