"""The tables of a report that say what the hardware did: processors, memory, GPUs.

Over the passes means are averaged and maxima are the most in any pass. A GPU's duty cycle is shown as the GPU's: it
gives none to a model.
"""

from collections.abc import Mapping
from typing import Any

from benchmarks.report.cells import Column, Rung, folded, gibibytes, mean, number, over_passes, whole
from benchmarks.report.neighbours import Result, called
from benchmarks.report.tables import Table, of_rungs


def processors(result: Result) -> Table:
    """Processors and memory under each rung."""
    columns: dict[str, Column] = {
        "cores used": over_passes(mean, "models", "model", "cpu_cores"),
        "host CPU %": over_passes(mean, "host", "cpu_percent"),
        "stolen %": over_passes(mean, "host", "steal_percent"),
        "held back by a quota, s": over_passes(max, "host", "throttled_s"),
        "most memory, GiB": over_passes(max, "models", "model", "max_resident_bytes", form=gibibytes),
        "processes": over_passes(max, "models", "model", "max_processes", form=whole),
        "waits/s": over_passes(mean, "models", "model", "voluntary_switches_per_s"),
        "preemptions/s": over_passes(mean, "models", "model", "involuntary_switches_per_s"),
    }
    note = "Means over the passes; of memory, processes and time held back the most in any pass."
    return of_rungs("Processors and memory", result["rungs"], columns, note)


def gpus(result: Result) -> Table:
    """Every GPU under each rung; where there is none, the note says why."""
    found = [
        {
            "name": f"{called(rung)}, GPU {index}",
            "batch_size": None,
            "users": rung["users"],
            "gpu": _passes(rung, index),
        }
        for rung in result["rungs"]
        for index in sorted({gpu["index"] for window in rung["utilisation"] for gpu in window["gpus"]})
    ]
    columns: dict[str, Column] = {
        "GPU": lambda rung: folded(lambda names: names[0], (gpu["name"] for gpu in rung["gpu"]), str),
        "busy %": _gpu(mean, "utilization_percent"),
        "SM busy %": _gpu(mean, "sm_util_percent"),
        "SM occupancy %": _gpu(mean, "sm_occupancy_percent"),
        "memory bandwidth %": _gpu(mean, "dram_bandwidth_percent"),
        "most memory, GiB": _gpu(max, "max_memory_used_bytes", gibibytes),
        "of GiB": _gpu(max, "memory_total_bytes", gibibytes),
        "power, W": _gpu(mean, "power_w"),
        "SM clock, MHz": _gpu(mean, "sm_clock_mhz"),
        "most °C": _gpu(max, "max_temperature_c"),
        "slowed by": _gpu(
            lambda lists: sorted({name for names in lists for name in names}), "throttle_reasons", _reasons
        ),
        "shared": _gpu(any, "shared", _yes),
        "lost": _gpu(any, "lost", _yes),
    }
    errors = dict.fromkeys(window["nvml_error"] for rung in result["rungs"] for window in rung["utilisation"])
    return of_rungs("GPUs", found, columns, "; ".join(error for error in errors if error))


def _gpu(fold: Any, key: str, form: Any = number) -> Column:
    return lambda rung: folded(fold, (gpu[key] for gpu in rung["gpu"]), form)


def _passes(rung: Rung, index: int) -> list[Mapping[str, Any]]:
    return [gpu for window in rung["utilisation"] for gpu in window["gpus"] if gpu["index"] == index]


def _reasons(names: list[str]) -> str:
    return ", ".join(names) or "nothing"


def _yes(value: bool) -> str:
    return "YES" if value else "no"
