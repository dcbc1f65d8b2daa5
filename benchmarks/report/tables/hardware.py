"""The tables of the hardware: processors, memory, GPUs.

Over the passes means are averaged and maxima are the most in any pass. A GPU's duty cycle is shown as the GPU's, not as
a model's.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

from benchmarks.analysis.hardware import GpuWindow
from benchmarks.analysis.summary import RungSummary
from benchmarks.report.cells import Cell, Column, folded, gibibytes, mean, number, of, of_processes, over_passes, whole
from benchmarks.report.neighbours import title_of, users_of
from benchmarks.report.tables.base import Table, of_rungs, of_subjects
from benchmarks.result import Result

T = TypeVar("T")
Passes = Sequence[GpuWindow]
"""A GPU in every pass of a rung."""


def processors(result: Result) -> Table:
    """Processors and memory under each rung."""
    columns: dict[str, Column] = {
        "cores used": of_processes(mean, lambda processes: processes.cpu_cores, number),
        "by others, cores": of(lambda rung: rung.other_cores, number),
        "host CPU %": over_passes(mean, lambda window: window.host.cpu_percent, number),
        "stolen %": over_passes(mean, lambda window: window.host.steal_percent, number),
        "held back by a quota, s": over_passes(max, lambda window: window.host.throttled_s, number),
        "most memory, GiB": of_processes(max, lambda processes: processes.max_resident_bytes, gibibytes),
        "processes": of_processes(max, lambda processes: processes.max_processes, whole),
        "waits/s": of_processes(mean, lambda processes: processes.voluntary_switches_per_s, number),
        "preemptions/s": of_processes(mean, lambda processes: processes.involuntary_switches_per_s, number),
    }
    note = "Means over the passes; of memory, processes and time held back the most in any pass."
    return of_rungs("Processors and memory", result.rungs, columns, note)


def gpus(result: Result) -> list[Table]:
    """Every GPU under each rung, in one table; none where the machine has none."""
    subjects = [
        (f"{title_of(rung)}, GPU {index}", users_of(rung), _passes(rung, index))
        for rung in result.rungs
        for index in sorted({gpu.index for window in rung.utilisation for gpu in window.gpus})
    ]
    columns: dict[str, Callable[[Passes], Cell]] = {
        "GPU": _gpu(lambda names: names[0], lambda gpu: gpu.name, str),
        "busy %": _gpu(mean, lambda gpu: gpu.utilization_percent, number),
        "SM busy %": _gpu(mean, lambda gpu: gpu.sm_util_percent, number),
        "SM occupancy %": _gpu(mean, lambda gpu: gpu.sm_occupancy_percent, number),
        "memory bandwidth %": _gpu(mean, lambda gpu: gpu.dram_bandwidth_percent, number),
        "most memory, GiB": _gpu(max, lambda gpu: gpu.max_memory_used_bytes, gibibytes),
        "of GiB": _gpu(max, lambda gpu: gpu.memory_total_bytes, gibibytes),
        "power, W": _gpu(mean, lambda gpu: gpu.power_w, number),
        "SM clock, MHz": _gpu(mean, lambda gpu: gpu.sm_clock_mhz, number),
        "most °C": _gpu(max, lambda gpu: gpu.max_temperature_c, number),
        "slowed by": _gpu(_union, lambda gpu: gpu.throttle_reasons, lambda reasons: ", ".join(reasons) or "nothing"),
        "shared": _gpu(any, lambda gpu: gpu.shared, _yes),
        "lost": _gpu(any, lambda gpu: gpu.lost, _yes),
    }
    if not subjects and not result.machine.gpus:
        return []
    errors = dict.fromkeys(window.nvml_error for rung in result.rungs for window in rung.utilisation)
    return [of_subjects("GPUs", subjects, columns, "; ".join(error for error in errors if error))]


def _gpu(
    fold: Callable[[list[T]], T], read: Callable[[GpuWindow], T | None], form: Callable[[T], str]
) -> Callable[[Passes], Cell]:
    return lambda passes: folded(fold, (read(gpu) for gpu in passes), form)


def _passes(rung: RungSummary, index: int) -> list[GpuWindow]:
    return [gpu for window in rung.utilisation for gpu in window.gpus if gpu.index == index]


def _union(reasons: list[list[str]]) -> list[str]:
    return sorted({reason for window in reasons for reason in window})


def _yes(value: bool) -> str:
    return "YES" if value else "no"
