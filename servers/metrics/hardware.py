"""The load of processes, host and GPUs: the newest sample of the sampler, and the memory of this moment.

The duty cycle of a GPU that several models share has no model. Samples that are too old are left out.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from configs.settings import Telemetry
from servers.metrics.families import Value, family
from servers.telemetry import Sample, Sampler
from servers.telemetry.memory import memory

if TYPE_CHECKING:
    from servers.telemetry.cpu import Roots
    from servers.telemetry.nvml import GpuSample

_log = logging.getLogger("litport.metrics")
_SWITCHES_EVERY_S = 10.0
_NO_MODEL = "other"

# Series, its field of GpuSample, the divisor to the unit of the series, and its description.
_GPU_GAUGES = (
    ("memory_used_bytes", "memory_used_bytes", 1, "Memory in use"),
    ("memory_total_bytes", "memory_total_bytes", 1, "Memory there is"),
    ("power_watts", "power_w", 1, "Power drawn; on most GPUs a mean over a second"),
    ("temperature_celsius", "temperature_c", 1, "Temperature"),
    ("sm_clock_hertz", "sm_clock_mhz", 1e-6, "Clock of the streaming multiprocessors"),
    ("memory_clock_hertz", "mem_clock_mhz", 1e-6, "Clock of the memory"),
    ("sm_utilization_ratio", "sm_util_percent", 100, "Share of the multiprocessors that were at work (GPM)"),
    ("sm_occupancy_ratio", "sm_occupancy_percent", 100, "Share of the multiprocessors' warps in use (GPM)"),
    ("memory_bandwidth_ratio", "dram_bandwidth_percent", 100, "Share of the memory's bandwidth in use (GPM)"),
)


def make_sampler(telemetry: Telemetry, processes: "Callable[[], Roots]") -> Sampler | None:
    """A sampler of the last half minute, not yet started; None where `telemetry.sample_interval_s` is null.

    `processes` maps each model that has processes to its process groups. A failed reading is logged once for each
    message, and the next one is tried.
    """
    interval_s = telemetry.sample_interval_s
    if interval_s is None:
        return None
    problems: set[str] = set()

    def report(problem: Exception) -> None:
        if str(problem) not in problems:
            problems.add(str(problem))
            _log.warning("hardware could not be read: %s: %s", type(problem).__name__, problem)

    max_samples = max(2, round(30 / interval_s))
    return Sampler(processes, interval_s, max_samples, _SWITCHES_EVERY_S, report)


class HardwareCollector(Collector):
    """Reads the newest sample of the sampler for each request of the page."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler

    def collect(self) -> Iterator[Metric]:
        """The series of the last sample; those of the host's memory are of this moment."""
        host = memory()
        yield family(
            "gauge",
            "host_memory_total_bytes",
            "Memory that there is for us",
            [({}, host.total_bytes)],
        )
        yield family(
            "gauge", "host_memory_available_bytes", "Of it, what can still be had", [({}, host.available_bytes)]
        )
        if samples := self._sampler.fresh:
            yield from _processes(samples)
            yield from _host(samples[-1])
            yield from _gpus(samples[-1].gpus)


def _processes(samples: tuple[Sample, ...]) -> Iterator[Metric]:
    newest = samples[-1].models
    models = [({"model": name}, sample) for name, sample in newest.items()]
    yield family("counter", "model_cpu_seconds", "Processor time", [(label, m.cpu_s) for label, m in models])
    yield family(
        "gauge",
        "model_resident_memory_bytes",
        "Memory of all processes together; what they share counts more than once",
        [(label, m.resident_bytes) for label, m in models],
    )
    yield family("gauge", "model_processes", "Living processes", [(label, m.processes) for label, m in models])
    # The sampler reads them less often than the others.
    switches = next((s.models for s in reversed(samples) if _has_switches(s)), {})
    yield family(
        "counter",
        "model_context_switches",
        "Context switches of all threads; voluntary is waiting, involuntary is being put off",
        [
            ({"model": name, "kind": kind}, getattr(switches[name], f"{kind}_switches"))
            for name in newest.keys() & switches.keys()
            for kind in ("voluntary", "involuntary")
        ],
    )


def _has_switches(sample: Sample) -> bool:
    return any(model.voluntary_switches is not None for model in sample.models.values())


def _host(sample: Sample) -> Iterator[Metric]:
    host = sample.host
    yield family("gauge", "host_cpu_ratio", "Share of all cores at work", [({}, _ratio(host.cpu_percent))])
    yield family("gauge", "host_cpu_steal_ratio", "Share that others took", [({}, _ratio(host.steal_percent))])
    yield family("counter", "host_throttled_periods", "Periods cut by a CPU quota", [({}, host.nr_throttled)])
    throttled_s = None if host.throttled_usec is None else host.throttled_usec / 1e6
    yield family("counter", "host_throttled_seconds", "Time that tasks waited for the quota", [({}, throttled_s)])


def _gpus(gpus: "Iterable[GpuSample]") -> Iterator[Metric]:
    readings = [({"gpu": str(gpu.index)}, gpu) for gpu in gpus]
    names = [
        ({**label, "uuid": g.uuid or "", "name": g.name or "", "mig": "" if g.mig is None else str(g.mig).lower()}, 1)
        for label, g in readings
    ]
    yield family("gauge", "gpu_info", "The GPU's name", names)
    yield family("gauge", "gpu_lost", "1 where the driver has lost the GPU", [(label, g.lost) for label, g in readings])
    yield family(
        "gauge",
        "gpu_shared",
        "1 where more than one model, or a stranger, is on it",
        [(label, g.shared) for label, g in readings],
    )
    yield family(
        "gauge",
        "gpu_utilization_ratio",
        "Duty cycle: share of the time in which a kernel ran, however little of the GPU it filled; whose it was",
        [({**label, "model": g.model or ""}, _ratio(g.utilization_percent)) for label, g in readings],
    )
    for name, field, divisor, description in _GPU_GAUGES:
        values = [(label, getattr(gpu, field)) for label, gpu in readings]
        yield family(
            "gauge",
            f"gpu_{name}",
            description,
            [(label, None if value is None else value / divisor) for label, value in values],
        )
    yield family(
        "counter",
        "gpu_energy_joules",
        "Energy since the driver was loaded",
        [(label, g.energy_j) for label, g in readings],
    )
    reasons = [({**label, "reason": reason}, 1) for label, g in readings for reason in g.throttle_reasons or ()]
    yield family("gauge", "gpu_throttle_reason", "1 for each reason why its clock is held down", reasons)
    yield family(
        "gauge", "gpu_process_memory_bytes", "Memory of the processes of a model on it", list(_by_model(readings))
    )
    # Prometheus has a label `instance` of its own.
    slices = [({**label, "mig_instance": str(part.index)}, part) for label, g in readings for part in g.mig_instances]
    for name in ("memory_used_bytes", "memory_total_bytes"):
        values = [(label, getattr(part, name)) for label, part in slices]
        yield family("gauge", f"gpu_instance_{name}", "Memory of a MIG instance", values)


def _by_model(readings: "Iterable[tuple[dict[str, str], GpuSample]]") -> Iterator[Value]:
    for label, gpu in readings:
        sums: dict[str, int] = {}
        for process in gpu.processes or ():
            if process.memory_bytes is not None:
                owner = process.model or _NO_MODEL
                sums[owner] = sums.get(owner, 0) + process.memory_bytes
        for owner, size in sums.items():
            yield {**label, "model": owner}, size


def _ratio(percent: float | None) -> float | None:
    return None if percent is None else percent / 100
