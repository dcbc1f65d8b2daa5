"""The ladder: every rung measured on the same requests, one at a time, up and down again.

The first pass goes from the bare model up, the next from the top down, and so on: a machine that grows slower or faster
favours no rung. Each rung is started for its pass and ended after it.
"""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import httpx

from benchmarks.analysis.hardware import RUNG, Sample, Window, window_of
from benchmarks.analysis.measurement import Answer, Measurement, RungResult
from benchmarks.course import Course
from benchmarks.load.ceiling import ceiling_per_s
from benchmarks.load.generator import GeneratorError
from benchmarks.load.request import ReadAs
from benchmarks.load.workload import Item
from benchmarks.rungs.base import Rung
from benchmarks.rungs.process import RungError
from configs.bench import Load
from configs.errors import UserError
from servers.telemetry import Sampler

Report = Callable[[str], None]
"""Takes a line of progress."""

Ceilings = Mapping[tuple[str, int | None], float]
"""Requests a second that the load generator reaches against a server that does nothing, by rung and users."""

_Place = tuple[str, int | None]  # a rung and a number of users, None for an open load

# Throughput must grow by this much when users double, or the ramp has reached its end.
_RAMP_GAIN = 1.05


@dataclass(frozen=True)
class Ladder:
    """What was measured; `gap` says why a part of it is missing, and is None where none is."""

    results: list[RungResult]
    gap: str | None = None
    ceilings: Ceilings = field(default_factory=dict)


def measure_ladder(make_rungs: Callable[[], Sequence[Rung]], course: Course, report: Report, passes: int) -> Ladder:
    """Measure every rung `passes` times; with the shape `ramp` at several numbers of users.

    A pass in which a rung fails, or that Ctrl-C interrupts, is not kept, and is the last; those before it are kept.
    Raises RungError, UserError and KeyboardInterrupt in the first pass.
    """
    results: dict[_Place, RungResult] = {}
    rest = _Rest()
    order: list[str] = []
    for number in range(passes):
        rungs = list(make_rungs())
        if not order:
            order = [rung.name for rung in rungs]
            rest.names = order * passes
        name = f"pass {number + 1} of {passes}"
        try:
            measured = _measure_pass(rungs[::-1] if number % 2 else rungs, course, report, name, rest)
        except (RungError, UserError, KeyboardInterrupt) as problem:
            if not results:
                raise
            gap = f"{name} was given up: {str(problem) or 'it was interrupted'}"
            report(f"{gap}; what was measured before it is kept")
            return Ladder(_in_order(results, order), gap)
        for place, result in measured.items():
            results[place] = results[place].with_passes_of(result) if place in results else result
    return Ladder(_in_order(results, order))


def _in_order(results: Mapping[_Place, RungResult], order: Sequence[str]) -> list[RungResult]:
    return sorted(results.values(), key=lambda result: (order.index(result.rung), result.users or 0))


def _measure_pass(
    rungs: Sequence[Rung], course: Course, report: Report, name: str, rest: "_Rest"
) -> dict[_Place, RungResult]:
    """Each rung in this order, and what it answers, where that is compared and a pass before has not said it."""
    results: dict[_Place, RungResult] = {}
    for rung in rungs:
        step = f"{name}, {rung.name}"
        report(f"{step}: starting{rest.describe()}")
        begin_s = time.monotonic()
        try:
            rung.start()
            start_s = time.monotonic() - begin_s
            for users, reading in _measure(rung, course, report, step):
                result = results[rung.name, users] = _result(rung, users, start_s, reading)
                if rest.is_first(rung.name) and course.bench.parity_prompts:
                    report(f"{step}: comparing answers")
                    result.answers, result.answers_error = _answers(rung, course)
                    if result.answers_error:
                        report(f"{step}: its answers cannot be compared: {result.answers_error}")
        finally:
            rung.end()
        rest.take(rung.name, time.monotonic() - begin_s)
    return results


@dataclass
class _Rest:
    """The rungs that are left, by name, and how long each took that was measured, in seconds."""

    names: list[str] = field(default_factory=list)
    durations_s: dict[str, float] = field(default_factory=dict)

    def is_first(self, name: str) -> bool:
        """Whether no pass of this rung is over."""
        return name not in self.durations_s

    def take(self, name: str, duration_s: float) -> None:
        """One pass of this rung is over."""
        self.names.remove(name)
        self.durations_s[name] = duration_s

    def describe(self) -> str:
        """About how long they will take, by the passes before, or by the mean of the rungs before."""
        if not self.durations_s:
            return ""
        mean_s = sum(self.durations_s.values()) / len(self.durations_s)
        left_s = sum(self.durations_s.get(name, mean_s) for name in self.names)
        return f", about {left_s / 60:.0f} min left" if left_s >= 90 else f", about {left_s:.0f} s left"


def _answers(rung: Rung, course: Course) -> tuple[list[Answer], str | None]:
    """The answers to compare, or why there are none: what was measured counts without them."""
    try:
        return rung.answer(course.parity), None
    except (RungError, httpx.HTTPError, ValueError, KeyError, TypeError) as problem:
        return [], f"{type(problem).__name__}: {problem}"


def with_ceilings(ladder: Ladder, offered: Load, report: Report) -> Ladder:
    """The ladder with what the load generator reaches against a server that answers at once, in as many parts."""
    report("measuring the load generator alone")
    ceilings: dict[tuple[ReadAs, int, int], float] = {}
    by_rung: dict[_Place, float] = {}
    try:
        for result in ladder.results:
            if result.read_as is None:
                continue
            records = [record for measurement in result.measurements for record in measurement.records]
            parts = [len(record.chunk_s) for record in records if record.chunk_s]
            users = result.users or offered.max_in_flight
            load = (result.read_as, max(1, round(sum(parts) / max(len(parts), 1))), users)
            if load not in ceilings:
                ceilings[load] = ceiling_per_s(*load, offered.generators)
            by_rung[result.rung, result.users] = ceilings[load]
    except (GeneratorError, KeyboardInterrupt) as problem:
        gap = f"the load generator was not measured alone: {str(problem) or 'it was interrupted'}"
        return replace(ladder, gap=ladder.gap or gap)
    return replace(ladder, ceilings=by_rung)


@dataclass(frozen=True)
class _Reading:
    measurement: Measurement
    utilisation: Window
    series: list[Sample]


def _result(rung: Rung, users: int | None, start_s: float, reading: _Reading) -> RungResult:
    return RungResult(
        rung.name,
        users,
        [start_s],
        [reading.measurement],
        [reading.utilisation],
        [reading.series],
        batch_size=rung.batch_size,
        machines=rung.machines,
        read_as=rung.read_as,
    )


def _measure(rung: Rung, course: Course, report: Report, step: str) -> Iterator[tuple[int | None, _Reading]]:
    """One measurement, which has no users where the load is open, or one for each number of users of a ramp."""
    load = course.bench.load
    if load.shape != "ramp":
        is_closed = load.shape == "closed"
        most = load.users if is_closed else load.max_in_flight
        report(f"{step}: measuring")
        yield load.users if is_closed else None, _measure_at(rung, course, most, load.users, course.items)
        return
    best = 0.0
    for users in itertools.takewhile(lambda users: users <= load.users, (2**power for power in itertools.count())):
        report(f"{step}: measuring with {users} users")
        reading = _measure_at(rung, course, users, users, course.items_at(users))
        yield users, reading
        rate = reading.measurement.throughput_per_s
        if rate < best * _RAMP_GAIN:
            return
        best = max(best, rate)


def _measure_at(rung: Rung, course: Course, users: int, warm_users: int, items: Sequence[Item]) -> _Reading:
    load = course.bench.load
    if course.warmup:
        records = rung.measure(course.warmup, warm_users, load.time_limit_s, 1).records
        if all(record.failed for record in records):
            raise RungError(f"{rung.name}: no request of the warm-up was answered: {records[0].error}")
    processes = {RUNG: rung.pid} if rung.pid else {}
    with Sampler(processes, course.bench.sample_interval_s) as sampler:
        measurement = rung.measure(items, users, load.time_limit_s, load.generators)
    begin_s, end_s = measurement.begin_s, measurement.end_s
    series = [
        Sample(sample.t_s - begin_s, dict(sample.models), sample.host, sample.gpus)
        for sample in sampler.samples
        if begin_s <= sample.t_s <= end_s
    ]
    return _Reading(measurement, window_of(sampler.summary(begin_s, end_s)), series)
