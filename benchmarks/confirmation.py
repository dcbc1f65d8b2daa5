"""The advice of a verdict put to the test: Litport as it is and as advised, A B B A."""

from dataclasses import replace

from benchmarks.analysis.measurement import Measurement, RungResult
from benchmarks.analysis.verdict import Advice
from benchmarks.course import Course
from benchmarks.ladder import Report, measure_ladder
from benchmarks.result import Confirmation
from benchmarks.rungs.base import Rung
from benchmarks.rungs.factory import RungFactory
from benchmarks.rungs.process import RungError


def confirm(rungs: RungFactory, course: Course, advice: Advice, report: Report) -> Confirmation:
    """Measure both, and compare throughput and latency. Raises RungError, KeyboardInterrupt."""
    advised = f"litport with {advice.setting}={advice.value}"

    def make_rungs() -> list[Rung]:
        return [rungs.litport(), replace(rungs.litport({advice.setting: advice.value}), name=advised)]

    load = course.bench.load
    if load.shape == "ramp":  # at its most users only
        bench = course.bench.model_copy(update={"load": load.model_copy(update={"shape": "closed"})})
        course = replace(course, bench=bench)
    ladder = measure_ladder(make_rungs, course, report, passes=2)
    if ladder.gap:
        raise RungError(ladder.gap)
    plain, changed = ladder.results
    pairs = _pairs(plain, changed)
    throughput = [with_advice.throughput_per_s / without.throughput_per_s for without, with_advice in pairs]
    latency = [with_advice.e2e_s / without.e2e_s for without, with_advice in pairs]
    return Confirmation(
        setting=advice.setting,
        value=advice.value,
        throughput_ratio=sum(throughput) / len(throughput),
        throughput_ratios=throughput,
        e2e_ratio=sum(latency) / len(latency),
        e2e_ratios=latency,
        helped=min(throughput) > 1 or (max(latency) < 1 and min(throughput) > 0.98),
    )


def _pairs(plain: RungResult, changed: RungResult) -> list[tuple[Measurement, Measurement]]:
    return list(zip(plain.measurements, changed.measurements, strict=True))
