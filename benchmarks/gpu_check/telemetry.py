"""Part 1: what telemetry reads of a GPU, against loads that are known.

The loads come from a process of its own (`load`), so that it can be told from the one that reads.
"""

import json
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from benchmarks.gpu_check.card import Context
from benchmarks.gpu_check.check import NotRunError, Recorder
from servers.processes.interpreter import module_argv
from servers.telemetry import Sampler

LOAD = "load"
_GIB = 1024**3
_INTERVAL_S = 0.1
# NVML's duty cycle is that of up to a second before, and clocks rise meanwhile.
_SETTLE_S = 1.5
_ALLOCATIONS_GIB = (1, 4)
_SHARES = (0.1, 0.5, 1.0)


@dataclass(frozen=True)
class Watch:
    """The telemetry of one load over `window_s`: of the card, of the process, and the load's own account."""

    window_s: float
    card: dict[str, Any]
    process_memory_bytes: int | None
    samples: int
    answer: dict[str, Any]
    cpu_s: float


class Load:
    """The process that makes the load; `settle_s` is how much of each load's begin does not count."""

    def __init__(self, process: "subprocess.Popen[str]", settle_s: float = _SETTLE_S) -> None:
        self._process = process
        self._settle_s = settle_s
        self._receive()

    @property
    def pid(self) -> int:
        """Its process id, as this process sees it."""
        return self._process.pid

    def watch(self, do: str, seconds: float, **options: Any) -> Watch:
        """What the sampler reads while the load does this for so many seconds."""
        assert self._process.stdin is not None
        with Sampler({LOAD: self.pid}, _INTERVAL_S) as sampler:
            begin_s, begin_cpu_s = time.monotonic(), time.process_time()
            self._process.stdin.write(json.dumps({"do": do, "seconds": seconds, **options}) + "\n")
            answer = self._receive()
            end_s, cpu_s = time.monotonic(), time.process_time() - begin_cpu_s
        start_s = min(begin_s + self._settle_s, end_s)
        summary = sampler.summary(start_s, end_s)
        memory_bytes = summary["models"][LOAD]["max_gpu_memory_bytes"]
        return Watch(end_s - start_s, summary["gpus"][0], memory_bytes, len(sampler.samples), answer, cpu_s)

    def _receive(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the load ended with status {self._process.wait(10)}")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def running_load(argv: Sequence[str], settle_s: float = _SETTLE_S) -> Iterator[Load]:
    """The load, started by this command, until the block is left."""
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        try:
            yield Load(process, settle_s)
        finally:
            process.kill()


def run(record: Recorder, context: Context) -> None:
    """Start the load and compare. Raises NotRunError without a card that torch can use."""
    if not context.on_card:
        raise NotRunError("a rehearsal: telemetry needs the card")
    context.require_card()
    with running_load(module_argv("benchmarks.gpu_check.load")) as load:
        compare(record, load)


def compare(record: Recorder, load: Load, seconds: float = 6.0) -> None:
    """Every check of the part; each load runs about so many seconds."""
    idle = load.watch("idle", seconds)
    record.within("an idle card reads as idle", idle.card["utilization_percent"], 0, 1, "%")
    record.within("processor time of a sample", 1000 * idle.cpu_s / idle.samples, 0, 10, "ms")
    _compare_state(record, idle)
    _compare_memory(record, load, idle, seconds)
    for share in _SHARES:
        watch = load.watch("duty", seconds, share=share)
        percent = 100 * watch.answer["share"]
        name = f"a kernel that runs {100 * share:g} % of the time reads as that"
        record.within(name, watch.card["utilization_percent"], round(percent - 5, 1), round(percent + 5, 1), "%")
        if share == 1:
            record.within("one busy multiprocessor: SM activity", watch.card["sm_util_percent"], 0, 10, "%")
            record.within("a kernel without memory: DRAM activity", watch.card["dram_bandwidth_percent"], 0, 5, "%")
    fill = load.watch("fill", 2 * seconds)
    record.within("products of matrices: SM activity", fill.card["sm_util_percent"], 80, 100, "%")
    compare_energy(record, fill)
    stream = load.watch("stream", seconds)
    record.within("copies: DRAM activity", stream.card["dram_bandwidth_percent"], 50, 100, "%")


def _compare_state(record: Recorder, idle: Watch) -> None:
    for name, field in (
        ("SM clock", "sm_clock_mhz"),
        ("memory clock", "mem_clock_mhz"),
        ("temperature", "max_temperature_c"),
        ("throttle reasons", "throttle_reasons"),
    ):
        value = idle.card[field]
        if value is None:
            record.skip(f"{name} is there", "the card or its driver does not tell")
        else:
            record.judge(f"{name} is there", value, "a value", passed=True)


def _compare_memory(record: Recorder, load: Load, before: Watch, seconds: float) -> None:
    for gib in _ALLOCATIONS_GIB:
        after = load.watch("hold", min(1.0, seconds), gib=gib)
        name = f"{gib} GiB allocated"
        card_gib = _grown_gib(before.card["max_memory_used_bytes"], after.card["max_memory_used_bytes"])
        record.within(f"{name} show up on the card", card_gib, gib - 0.1, gib + 0.1, "GiB")
        process_gib = _grown_gib(before.process_memory_bytes, after.process_memory_bytes)
        reason = "NVML names no process of ours, as in a container with process ids of its own"
        record.within(f"{name} show up for the process", process_gib, gib - 0.1, gib + 0.1, "GiB", reason)
        before = after


def _grown_gib(before_bytes: int | None, after_bytes: int | None) -> float | None:
    return None if before_bytes is None or after_bytes is None else (after_bytes - before_bytes) / _GIB


def compare_energy(record: Recorder, watch: Watch) -> None:
    """The integral of the power samples over what the counter says, in the same time."""
    energy_j, power_w = watch.card["energy_j"], watch.card["power_w"]
    ratio = power_w * watch.window_s / energy_j if energy_j and power_w else None
    record.within("energy from power samples over the card's counter", ratio, 0.95, 1.05, "")
