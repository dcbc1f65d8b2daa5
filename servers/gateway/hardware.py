"""What the last samples of the machine say, for the status: how busy the host, the GPUs and each model's processes are.

Only arithmetic on what the sampler read. It never guesses: a figure that takes two samples is None while there is one.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from servers.telemetry import Sample
from servers.telemetry.memory import memory

if TYPE_CHECKING:
    from servers.telemetry.nvml import GpuSample


def summary(samples: Sequence[Sample], nvml_error: str | None) -> dict[str, Any] | None:
    """The host and its GPUs at the last sample, ready for JSON; None while there is no sample.

    Percent are of all cores; memory is what there is for us, a container's limit included.
    """
    if not samples:
        return None
    there = memory()
    cpu_percent = samples[-1].host.cpu_percent
    return {
        "cpu_percent": None if cpu_percent is None else round(cpu_percent, 1),
        "memory_available_bytes": there.available_bytes,
        "memory_total_bytes": there.total_bytes,
        "gpus": [_gpu(gpu) for gpu in samples[-1].gpus],
        "nvml_error": nvml_error,
    }


def cpu_cores(samples: Sequence[Sample]) -> dict[str, float]:
    """How many cores each model's processes kept busy between the last two samples; a model is left out if unknown.

    Unknown is a model that one of them did not see, and one whose processes were replaced in between: its count of CPU
    time then begins anew.
    """
    if len(samples) < 2:
        return {}
    before, after = samples[-2:]
    spent_s = after.t_s - before.t_s
    found = {}
    for name, now in after.models.items():
        then = before.models.get(name)
        if then is None or then.cpu_s is None or now.cpu_s is None or now.cpu_s < then.cpu_s or spent_s <= 0:
            continue
        found[name] = round((now.cpu_s - then.cpu_s) / spent_s, 2)
    return found


def _gpu(gpu: "GpuSample") -> dict[str, Any]:
    return {
        "index": gpu.index,
        "name": gpu.name,
        "utilization_percent": gpu.utilization_percent,
        "memory_used_bytes": gpu.memory_used_bytes,
        "memory_total_bytes": gpu.memory_total_bytes,
        "power_w": gpu.power_w,
        "shared": gpu.shared,
        "model": gpu.model,
        "lost": gpu.lost,
    }
