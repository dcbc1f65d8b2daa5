"""The ladder: every rung measured on the same requests, one at a time, up and down again.

The first pass goes from the bare model up, the next from the top down, and so on: a machine that grows slower
or faster favours no rung. Each rung is started for its pass and ended after it. It judges nothing.
"""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from benchmarks.load import arrivals, generator, null_server, workload
from benchmarks.load.workload import Item
from benchmarks.rungs.bare.outcome import Answer
from benchmarks.rungs.base import Measurement, Rung
from clients.record import window
from configs.bench import Bench, Workload
from servers.telemetry import Sampler

_CEILING_REQUESTS = 400
_PARITY_TOKENS = 16
# Throughput must grow by this much when users double, or the ramp has reached its end.
_RAMP_GAIN = 1.05
_LEVEL_SEED = 4_000_037
_WARM_SEED = 1_000_003
_PARITY_SEED = 2_000_003


@dataclass
class Climb:
    """What one rung gave in all passes: a measurement each, and what the hardware did meanwhile."""

    rung: str
    users: int
    start_s: list[float] = field(default_factory=list)
    measurements: list[Measurement] = field(default_factory=list)
    utilisation: list[dict[str, Any]] = field(default_factory=list)
    series: list[list[dict[str, Any]]] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    batch_size: int | None = None
    read_as: str | None = None


@dataclass(frozen=True)
class Course:
    """The requests of a run: those measured, and those before and after it that are not."""

    bench: Bench
    workload: Workload
    example: Any = None

    def items(self, level: int = 0) -> list[Item]:
        """The measured requests, with the times at which they are due; each level of a ramp has prompts of its own."""
        chosen = self.workload
        made = workload.make(chosen, chosen.requests, chosen.seed + level * _LEVEL_SEED, example=self.example)
        return arrivals.schedule(made, self.bench.load, chosen.seed)

    def warmup(self) -> list[Item]:
        """Requests that are not counted; none of their prompts comes again."""
        chosen = self.workload.model_copy(
            update={"kind": "tokens"} if self.workload.kind in ("shared-prefix", "file") else {}
        )
        return workload.make(chosen, self.bench.warmup_requests, chosen.seed + _WARM_SEED, example=self.example)

    def parity(self) -> list[Item]:
        """Short requests whose answers are compared; without `after`, as each is asked by itself."""
        made = workload.make(
            self.workload, self.bench.parity_prompts, self.workload.seed + _PARITY_SEED, example=self.example
        )
        return [
            msgspec.structs.replace(item, output_tokens=item.output_tokens and _PARITY_TOKENS, after=None)
            for item in made
        ]

    def digest(self) -> str:
        """A hash of the measured requests: two results with the same one were asked the same."""
        import hashlib

        return hashlib.sha256(msgspec.msgpack.encode(self.items())).hexdigest()


def climb(
    make_rungs: Callable[[], Sequence[Rung]], course: Course, on_step: Callable[[str], None], passes: int
) -> list[Climb]:
    """Measure every rung `passes` times; with the shape `ramp` at several numbers of users. Raises RungError."""
    climbs: dict[tuple[str, int], Climb] = {}
    order: list[str] = []
    for number in range(passes):
        rungs = list(make_rungs())
        order = order or [rung.name for rung in rungs]
        for rung in reversed(rungs) if number % 2 else rungs:
            words = f"pass {number + 1} of {passes}, {rung.name}"
            on_step(f"{words}: starting")
            begin_s = time.monotonic()
            try:
                rung.start()
                start_s = time.monotonic() - begin_s
                for users, measured in _measure(rung, course, on_step, words):
                    key = (rung.name, users)
                    kept = climbs.setdefault(key, Climb(rung.name, users))
                    kept.start_s.append(start_s)
                    kept.measurements.append(measured.measurement)
                    kept.utilisation.append(measured.utilisation)
                    kept.series.append(measured.series)
                    kept.batch_size = rung.batch_size
                    kept.read_as = getattr(rung, "read_as", None)
                    if number == 0 and not kept.answers and course.bench.parity_prompts:
                        on_step(f"{words}: comparing answers")
                        kept.answers = rung.answer(course.parity())
            finally:
                rung.end()
    return sorted(climbs.values(), key=lambda kept: (order.index(kept.rung), kept.users))


@dataclass(frozen=True)
class _Measured:
    measurement: Measurement
    utilisation: dict[str, Any]
    series: list[dict[str, Any]]


def _measure(rung: Rung, course: Course, on_step: Callable[[str], None], words: str) -> Iterator[tuple[int, _Measured]]:
    """One measurement, or one for each number of users of a ramp."""
    load = course.bench.load
    if load.shape != "ramp":
        users = load.users if load.shape == "closed" else load.max_in_flight
        on_step(f"{words}: measuring")
        yield load.users, _measure_at(rung, course, users, load.users, 0)
        return
    best = 0.0
    for users in itertools.takewhile(lambda users: users <= load.users, (2**power for power in itertools.count())):
        on_step(f"{words}: measuring with {users} users")
        measured = _measure_at(rung, course, users, users, users)
        yield users, measured
        rate = measured.measurement.throughput_per_s
        if rate < best * _RAMP_GAIN:
            return
        best = max(best, rate)


def _measure_at(rung: Rung, course: Course, users: int, warm_users: int, level: int) -> _Measured:
    load = course.bench.load
    if warmup := course.warmup():
        rung.measure(warmup, warm_users, load.time_limit_s, 1)
    processes = {"model": rung.pid} if rung.pid else {}
    with Sampler({name: pid for name, pid in processes.items() if pid}, course.bench.sample_interval_s) as sampler:
        measurement = rung.measure(course.items(level), users, load.time_limit_s, load.generators)
    begin_s, end_s = measurement.begin_s, measurement.end_s
    series = [sample for sample in sampler.series() if begin_s <= sample["t_s"] <= end_s]
    for sample in series:
        sample["t_s"] -= begin_s
    return _Measured(measurement, sampler.summary(begin_s, end_s), series)


def ceiling_per_s(read_as: str, parts: int, users: int, processes: int) -> float:
    """Requests a second that the load generator reaches against a server that answers at once with `parts` parts."""
    items = workload.make(Workload(), _CEILING_REQUESTS, 0)
    calls = workload.calls(items, "completions", "null", "/v1/completions")
    with null_server.running(read_as, parts) as url:
        result = generator.generate(url, read_as, calls, users, 60, processes)
    begin_s, end_s = window(result.records)
    return len(result.records) / (end_s - begin_s)
