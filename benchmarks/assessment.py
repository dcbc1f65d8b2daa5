"""What the measurements of a ladder mean: a summary of each rung, findings against it, and the verdict."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.analysis import efficiency, figures, validity, verdict
from benchmarks.analysis.hardware import Window
from benchmarks.analysis.measurement import RungResult
from benchmarks.analysis.summary import GeneratorSummary, RungSummary, summarise
from benchmarks.analysis.validity import Facts, Finding
from benchmarks.analysis.verdict import Situation, Verdict
from benchmarks.course import Course
from benchmarks.environment import Machine
from benchmarks.ladder import Ladder
from benchmarks.load import arrivals, workload
from benchmarks.rungs.harness import LITPORT, EngineHarness


@dataclass(frozen=True)
class Assessment:
    """The rungs as the result shows them, and the findings against all of them."""

    rungs: list[RungSummary]
    findings: list[Finding]


def analyse(
    ladder: Ladder,
    course: Course,
    model_dir: Path | None = None,
    dtype: str | None = None,
    require_parity: bool = False,
) -> Assessment:
    """Summarise every rung and look for findings; `require_parity` makes other answers than the baseline's one."""
    results = ladder.results
    baseline = next((result for result in results if result.answers), None)
    rungs, findings = [], [Finding("passes", results[-1].rung, ladder.gap)] if ladder.gap else []
    for result in results:
        ceiling = ladder.ceilings.get((result.rung, result.users))
        summary = summarise(
            result,
            course.bench,
            baseline,
            _generator(result, course, ceiling),
            efficiency.assess(result, model_dir, dtype, course.bench.price_per_hour),
            result.users is not None and result.users == _knee(results, result.rung),
        )
        findings += _findings(result, course, ceiling)
        if require_parity and result.answers_error:
            message = f"its answers cannot be compared: {result.answers_error}"
            findings.append(Finding("parity", result.rung, message))
        if require_parity and summary.parity and not summary.parity.holds:
            findings.append(Finding("parity", result.rung, summary.parity.problem))
        rungs.append(summary)
    return Assessment(rungs, findings)


def judge(results: Sequence[RungResult], harness: EngineHarness, model: Any, machine: Machine) -> Verdict | None:
    """Why Litport, or else the last rung with a load generator, is slower than the model without a server.

    None where no such rung was measured, or not where its time goes.
    """
    backwards = list(reversed(results))
    top = next((result for result in backwards if result.rung == LITPORT), None)
    top = top or next((result for result in backwards if result.read_as), None)
    if top is None or top.measurements[0].time is None:
        return None
    bare = [result for result in results if result.read_as is None and result.users == top.users]
    reference = max(bare, key=lambda result: result.ratio_to(top), default=None)
    situation = Situation(
        subject="Litport" if top.rung == LITPORT else f"the rung {top.rung}",
        model=model,
        time=top.measurements[-1].time or top.measurements[0].time,
        users=top.under_way,
        cores=machine.cores,
        on_cpu=not machine.gpus or harness.on_cpu(model),
        reference=reference.rung if reference else "",
        ratio=top.ratio_to(reference) if reference else None,
        busy_share=_busy_share(top.utilisation),
        best_batch=reference.batch_size if reference else None,
    )
    return verdict.judge(situation, harness.causes)


def _busy_share(windows: Sequence[Window]) -> float | None:
    percents = [window.host.cpu_percent for window in windows if window.host.cpu_percent is not None]
    return sum(percents) / len(percents) / 100 if percents and len(percents) == len(windows) else None


def _knee(results: Sequence[RungResult], rung: str) -> int | None:
    levels = [
        (result.users, result.throughput_per_s, result.e2e_s)
        for result in results
        if result.rung == rung and result.users is not None
    ]
    return figures.knee(levels)


def _findings(result: RungResult, course: Course, ceiling: float | None) -> list[Finding]:
    findings: list[Finding] = []
    for measurement, window in zip(result.measurements, result.utilisation, strict=True):
        throttled_s = window.host.throttled_s
        sent = course.items[: len(measurement.records)]
        facts = Facts(
            rung=result.rung,
            measurement=measurement,
            under_way=result.under_way,
            offered_per_s=arrivals.offered_rate_per_s(sent),
            expected_hit_rate=workload.expected_hit_rate(course.workload, sent),
            ceiling_per_s=ceiling,
            throttled_share=None if throttled_s is None else throttled_s / measurement.duration_s,
        )
        findings += validity.check(facts, course.bench)
    count = sum(len(measurement.records) for measurement in result.measurements)
    findings += validity.check_size(result.rung, count, course.bench)
    findings += validity.check_passes(result.rung, result.measurements, course.bench)
    return list(dict.fromkeys(findings))


def _generator(result: RungResult, course: Course, ceiling: float | None) -> GeneratorSummary | None:
    costs = [cost for measurement in result.measurements for cost in measurement.costs]
    if not costs or ceiling is None:
        return None
    fastest = max(validity.request_rate(measurement) for measurement in result.measurements)
    sent_s = [sorted(record.sent_s for record in measurement.records) for measurement in result.measurements]
    rates = [(len(times) - 1) / (times[-1] - times[0]) for times in sent_s if times[-1] > times[0]]
    return GeneratorSummary(
        ceiling_requests_per_s=ceiling,
        share_of_ceiling=fastest / ceiling,
        cpu_share=max(cost.cpu_s / cost.wall_s for cost in costs),
        lag_p99_s=max(cost.lag_p99_s for cost in costs),
        offered_per_s=arrivals.offered_rate_per_s(course.items),
        achieved_per_s=sum(rates) / len(sent_s),
    )
