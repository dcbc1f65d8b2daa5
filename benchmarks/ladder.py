"""The ladder: every rung measured on the same requests, one at a time, up and down again.

The first pass goes from the bare model up, the next from the top down, and so on: a machine that grows slower or faster
favours no rung. Each rung is started for its pass and ended after it.
"""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import httpx

from benchmarks.analysis.hardware import RUNG, Sample, Window, window_of
from benchmarks.analysis.measurement import Answer, Measurement, RungResult
from benchmarks.course import Course
from benchmarks.load.ceiling import ceiling_per_s
from benchmarks.load.request import ReadAs
from benchmarks.load.workload import Item
from benchmarks.rungs.base import Rung
from benchmarks.rungs.process import RungError
from servers.telemetry import Sampler

Report = Callable[[str], None]
"""Takes a line of progress."""

Ceilings = Mapping[tuple[str, int], float]
"""Requests a second that the load generator reaches against a server that does nothing, by rung and users."""

# Throughput must grow by this much when users double, or the ramp has reached its end.
_RAMP_GAIN = 1.05


def measure_ladder(
    make_rungs: Callable[[], Sequence[Rung]], course: Course, report: Report, passes: int
) -> list[RungResult]:
    """Measure every rung `passes` times; with the shape `ramp` at several numbers of users. Raises RungError."""
    results: dict[tuple[str, int], RungResult] = {}
    order: list[str] = []
    durations_s: dict[str, float] = {}
    for number in range(passes):
        rungs = list(make_rungs())
        order = order or [rung.name for rung in rungs]
        climb = rungs[::-1] if number % 2 else rungs
        for place, rung in enumerate(climb):
            step = f"pass {number + 1} of {passes}, {rung.name}"
            names = [later.name for later in climb[place:]] + order * (passes - number - 1)
            report(f"{step}: starting{_describe_rest(names, durations_s)}")
            begin_s = time.monotonic()
            try:
                rung.start()
                start_s = time.monotonic() - begin_s
                for users, reading in _measure(rung, course, report, step):
                    result = results.setdefault((rung.name, users), RungResult(rung.name, users))
                    _add(result, rung, start_s, reading)
                    if number == 0 and not result.answers and course.bench.parity_prompts:
                        report(f"{step}: comparing answers")
                        result.answers, result.answers_error = _answers(rung, course)
                        if result.answers_error:
                            report(f"{step}: its answers cannot be compared: {result.answers_error}")
            finally:
                rung.end()
            durations_s[rung.name] = time.monotonic() - begin_s
    return sorted(results.values(), key=lambda result: (order.index(result.rung), result.users))


def _describe_rest(names: Sequence[str], durations_s: Mapping[str, float]) -> str:
    """About how long these rungs will take, by the passes before, or by the mean of the rungs before."""
    if not durations_s:
        return ""
    mean_s = sum(durations_s.values()) / len(durations_s)
    left_s = sum(durations_s.get(name, mean_s) for name in names)
    return f", about {left_s / 60:.0f} min left" if left_s >= 90 else f", about {left_s:.0f} s left"


def _answers(rung: Rung, course: Course) -> tuple[list[Answer], str | None]:
    """The answers to compare, or why there are none: what was measured counts without them."""
    try:
        return rung.answer(course.parity), None
    except (RungError, httpx.HTTPError, ValueError, KeyError, TypeError) as problem:
        return [], f"{type(problem).__name__}: {problem}"


def measure_ceilings(results: Sequence[RungResult], generators: int) -> Ceilings:
    """Measure the load generator against a server that answers at once, in as many parts as each rung did."""
    ceilings: dict[tuple[ReadAs, int, int], float] = {}
    by_rung = {}
    for result in results:
        if result.read_as is None:
            continue
        records = [record for measurement in result.measurements for record in measurement.records]
        parts = [len(record.chunk_s) for record in records if record.chunk_s]
        load = (result.read_as, max(1, round(sum(parts) / max(len(parts), 1))), result.users)
        if load not in ceilings:
            ceilings[load] = ceiling_per_s(*load, generators)
        by_rung[result.rung, result.users] = ceilings[load]
    return by_rung


@dataclass(frozen=True)
class _Reading:
    measurement: Measurement
    utilisation: Window
    series: list[Sample]


def _add(result: RungResult, rung: Rung, start_s: float, reading: _Reading) -> None:
    result.start_s.append(start_s)
    result.measurements.append(reading.measurement)
    result.utilisation.append(reading.utilisation)
    result.series.append(reading.series)
    result.batch_size = rung.batch_size
    result.machines = rung.machines
    result.read_as = rung.read_as


def _measure(rung: Rung, course: Course, report: Report, step: str) -> Iterator[tuple[int, _Reading]]:
    """One measurement, or one for each number of users of a ramp."""
    load = course.bench.load
    if load.shape != "ramp":
        users = load.users if load.shape == "closed" else load.max_in_flight
        report(f"{step}: measuring")
        yield load.users, _measure_at(rung, course, users, load.users, course.items)
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
