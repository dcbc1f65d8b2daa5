"""The summary of telemetry samples over a window of time.

Counters (CPU time, energy, context switches, throttled time) are interpolated linearly at the two ends of the window. A
percentage describes the time since the sample before and has the weight of that time. Gauges (duty cycle, power,
memory) are those of the samples inside the window. Where nothing was measured the value is None; `covered_s` is how
much of the window lies between samples.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from servers.telemetry.cpu import ModelSample
    from servers.telemetry.nvml import GpuSample, MigSample
    from servers.telemetry.sample import Sample

_Points = Sequence[tuple[float, float | None]]


def summarise(samples: "Sequence[Sample]", start_s: float, end_s: float) -> dict[str, Any]:
    """The window as a plain dictionary: `start_s`, `end_s`, `covered_s`, `samples` (how many inside), and

    - `models`: a name each; `cpu_cores` (mean cores in use), `max_resident_bytes`, `max_processes`,
      `voluntary_switches_per_s`, `involuntary_switches_per_s`, `max_gpu_memory_bytes` (over all GPUs at one moment);
    - `host`: `cpu_percent` and `steal_percent` (of all cores), `throttled_s`, `throttled_periods`;
    - `gpus`: one each, see `_gpu`; empty without a GPU.

    Times are of time.monotonic(), in seconds. Raises ValueError for a window that ends before it starts.
    """
    if end_s < start_s:
        raise ValueError(f"the window must not end before it starts, got {start_s} to {end_s}")
    window = _Window(start_s, end_s)
    inside = [sample for sample in samples if start_s <= sample.t_s <= end_s]
    earlier = [sample for sample in samples if sample.t_s < start_s]
    later = [sample for sample in samples if sample.t_s > end_s]
    touching = [*earlier[-1:], *inside, *later[:1]]
    names = dict.fromkeys(name for sample in touching for name in sample.models)
    indexes = sorted({gpu.index for sample in touching for gpu in sample.gpus})
    return {
        "start_s": start_s,
        "end_s": end_s,
        "covered_s": window.overlap(samples[0].t_s, samples[-1].t_s) if samples else 0.0,
        "samples": len(inside),
        "models": {name: _model(window, samples, inside, name) for name in names},
        "host": _host(window, samples),
        "gpus": [_gpu(window, samples, inside, index) for index in indexes],
    }


class _Growth(NamedTuple):
    """How much a counter grew, the seconds in which that is known, and the seconds between samples."""

    amount: float
    known_s: float
    sampled_s: float

    def per_s(self) -> float | None:
        return self.amount / self.known_s if self.known_s else None

    def total(self) -> float | None:
        whole = self.known_s and math.isclose(self.known_s, self.sampled_s)
        return self.amount if whole else None


class _Window(NamedTuple):
    start_s: float
    end_s: float

    def overlap(self, start_s: float, end_s: float) -> float:
        return max(0.0, min(self.end_s, end_s) - max(self.start_s, start_s))

    def growth(self, points: _Points) -> _Growth:
        """A counter's growth. A counter that fell was reset, so its growth between those two points is unknown."""
        amount = known_s = 0.0
        for (before_s, before), (after_s, after) in pairwise([(t_s, x) for t_s, x in points if x is not None]):
            share_s = self.overlap(before_s, after_s)
            if share_s and after >= before:
                amount += (after - before) * share_s / (after_s - before_s)
                known_s += share_s
        return _Growth(amount, known_s, self.overlap(points[0][0], points[-1][0]) if points else 0.0)

    def mean_since(self, points: _Points) -> float | None:
        """The mean of values that each describe the time since the point before."""
        shares = [(self.overlap(before[0], t_s), value) for before, (t_s, value) in pairwise(points)]
        weights = [(share_s, value) for share_s, value in shares if share_s and value is not None]
        if not weights:
            return None
        return sum(share_s * value for share_s, value in weights) / sum(share_s for share_s, _ in weights)


def _model(window: _Window, samples: "Sequence[Sample]", inside: "Sequence[Sample]", name: str) -> dict[str, Any]:
    def growth(field: "Callable[[ModelSample], float | None]") -> _Growth:
        return window.growth([(sample.t_s, field(sample.models[name])) for sample in samples if name in sample.models])

    model_samples = [sample.models[name] for sample in inside if name in sample.models]
    return {
        "cpu_cores": growth(lambda model: model.cpu_s).per_s(),
        "max_resident_bytes": _max(model.resident_bytes for model in model_samples),
        "max_processes": _max(model.processes for model in model_samples),
        "voluntary_switches_per_s": growth(lambda model: model.voluntary_switches).per_s(),
        "involuntary_switches_per_s": growth(lambda model: model.involuntary_switches).per_s(),
        "max_gpu_memory_bytes": _max(_gpu_memory_bytes(sample, name) for sample in inside),
    }


def _gpu_memory_bytes(sample: "Sample", name: str) -> int | None:
    sizes = [entry.memory_bytes for gpu in sample.gpus for entry in gpu.processes or () if entry.model == name]
    measured_sizes = [size for size in sizes if size is not None]
    return sum(measured_sizes) if sizes and len(measured_sizes) == len(sizes) else None


def _host(window: _Window, samples: "Sequence[Sample]") -> dict[str, Any]:
    throttled_usec = window.growth([(sample.t_s, sample.host.throttled_usec) for sample in samples]).total()
    return {
        "cpu_percent": window.mean_since([(sample.t_s, sample.host.cpu_percent) for sample in samples]),
        "steal_percent": window.mean_since([(sample.t_s, sample.host.steal_percent) for sample in samples]),
        "throttled_s": None if throttled_usec is None else throttled_usec / 1e6,
        "throttled_periods": window.growth([(sample.t_s, sample.host.nr_throttled) for sample in samples]).total(),
    }


def _gpu(window: _Window, samples: "Sequence[Sample]", inside: "Sequence[Sample]", index: int) -> dict[str, Any]:
    """One GPU: its identity, the model that used it, means of what varies, and `energy_j` of the covered time.

    `shared` is True if it was shared in any sample. `model` is set where that model did all of the work; only then is
    `utilization_percent` the model's. `energy_j` is None if the counter was unknown or reset at any time. `lost` is
    True if the GPU was lost in any sample; means are then over the samples before.
    """

    def points(field: "Callable[[GpuSample], float | None]") -> _Points:
        return [(sample.t_s, field(gpu)) for sample in samples for gpu in sample.gpus if gpu.index == index]

    gpus = [gpu for sample in inside for gpu in sample.gpus if gpu.index == index]
    reasons = [gpu.throttle_reasons for gpu in gpus if gpu.throttle_reasons is not None]
    sharing = [gpu.shared for gpu in gpus]
    models = {gpu.model for gpu in gpus if not gpu.lost}
    return {
        "index": index,
        "uuid": _first(gpu.uuid for gpu in gpus),
        "name": _first(gpu.name for gpu in gpus),
        "lost": any(gpu.lost for gpu in gpus),
        "mig": _first(gpu.mig for gpu in gpus),
        "shared": True if True in sharing else _first(sharing),
        "model": models.pop() if len(models) == 1 else None,
        "utilization_percent": _mean(gpu.utilization_percent for gpu in gpus),
        "power_w": _mean(gpu.power_w for gpu in gpus),
        "energy_j": window.growth(points(lambda gpu: gpu.energy_j)).total(),
        "max_memory_used_bytes": _max(gpu.memory_used_bytes for gpu in gpus),
        "memory_total_bytes": _first(gpu.memory_total_bytes for gpu in gpus),
        "max_temperature_c": _max(gpu.temperature_c for gpu in gpus),
        "sm_clock_mhz": _mean(gpu.sm_clock_mhz for gpu in gpus),
        "mem_clock_mhz": _mean(gpu.mem_clock_mhz for gpu in gpus),
        "throttle_reasons": sorted({name for names in reasons for name in names}) if reasons else None,
        "sm_util_percent": window.mean_since(points(lambda gpu: gpu.sm_util_percent)),
        "sm_occupancy_percent": window.mean_since(points(lambda gpu: gpu.sm_occupancy_percent)),
        "dram_bandwidth_percent": window.mean_since(points(lambda gpu: gpu.dram_bandwidth_percent)),
        "mig_instances": _mig_instances(gpus),
    }


def _mig_instances(gpus: "Sequence[GpuSample]") -> list[dict[str, Any]]:
    by_index: dict[int, list[MigSample]] = {}
    for sample in (sample for gpu in gpus for sample in gpu.mig_instances):
        by_index.setdefault(sample.index, []).append(sample)
    return [
        {
            "index": index,
            "uuid": _first(sample.uuid for sample in samples),
            "max_memory_used_bytes": _max(sample.memory_used_bytes for sample in samples),
            "memory_total_bytes": _first(sample.memory_total_bytes for sample in samples),
        }
        for index, samples in sorted(by_index.items())
    ]


def _mean(values: Iterable[float | None]) -> float | None:
    numbers = [value for value in values if value is not None]
    return sum(numbers) / len(numbers) if numbers else None


def _max(values: Iterable[int | None]) -> int | None:
    return max((value for value in values if value is not None), default=None)


def _first(values: Iterable[Any]) -> Any:
    return next((value for value in values if value is not None), None)
