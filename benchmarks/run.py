"""A benchmark run: from a recipe to a result, with its findings and its verdict.

It puts the parts together (ladder, figures, validity, parity, verdict) and does no measuring of its own.
"""

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import ladder, result
from benchmarks.analysis import efficiency, figures, validity, verdict
from benchmarks.analysis.validity import Facts, Finding
from benchmarks.ladder import Climb, Course
from benchmarks.load import arrivals, workload
from benchmarks.rungs.base import Measurement, Rung, ServerRung
from benchmarks.rungs.ladder_rungs import Ladder
from configs.errors import UserError
from configs.settings import LitportSettings, LitServeModel, VllmModel
from servers.processes.reaper import Reaper
from servers.store import Store
from servers.telemetry import machine as hardware

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What is to be measured: the settings, the model among them, and the words that asked for it."""

    settings: LitportSettings
    model: str
    command: Sequence[str]
    require_parity: bool = False
    confirm: bool = False


def choose(settings: LitportSettings) -> str:
    """The model that the settings want measured. Raises UserError when they do not say which."""
    if settings.bench.model is not None:
        if settings.bench.model not in settings.models:
            there = ", ".join(settings.models) or "none"
            raise UserError(f"bench.model: expected a model of the recipe ({there}), got {settings.bench.model!r}")
        return settings.bench.model
    if len(settings.models) != 1:
        there = ", ".join(settings.models) or "none"
        raise UserError(f"bench.model: expected the name of the model to measure, one of {there}")
    return next(iter(settings.models))


def run(plan: Plan, folder: Path, say: Say) -> dict[str, Any]:
    """Climb the ladder and return the result; requests.jsonl and logs go into `folder`. Raises RungError, UserError."""
    with Reaper(Path(tempfile.mkdtemp(prefix="litport-bench-"))) as reaper:  # which removes the folder
        return _run(plan, folder, say, reaper)


def _run(plan: Plan, folder: Path, say: Say, reaper: Reaper) -> dict[str, Any]:
    started_at = time.time()
    settings, bench = plan.settings, plan.settings.bench
    model = settings.models[plan.model]
    if model.source is not None:
        say(f"model {model.source}")
    model_dir = None if model.source is None else Store(settings.server.cache_dir).pull(model.source)
    logs = folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    rungs = Ladder(settings, plan.model, model_dir, logs, reaper)
    course = course_of(settings, rungs.workload_kind, model)
    items = course.items()
    climbs = ladder.climb(partial(rungs.rungs, items), course, say, bench.passes)
    written = Report(plan, course, model_dir, climbs)
    found = written.judge()
    confirmed = _confirm(rungs, course, found.advice, say) if plan.confirm and found and found.advice else None
    result.write_requests(folder, climbs)
    return written.document(started_at, found, confirmed)


def course_of(settings: LitportSettings, kind: str, model: VllmModel | LitServeModel) -> Course:
    """The requests that the settings ask for. Raises UserError where the model's example is needed and not there."""
    chosen = settings.bench.workload.model_copy(update={"kind": kind})
    example = model.example if isinstance(model, LitServeModel) else None
    if kind == "example" and example is None:
        raise UserError("models.NAME.example: expected a JSON request to measure this API with; set it in the recipe")
    return Course(settings.bench, chosen, example)


class Report:
    """Puts what was measured into a result document."""

    def __init__(self, plan: Plan, course: Course, model_dir: Path | None, climbs: Sequence[Climb]) -> None:
        self._plan = plan
        self._bench = plan.settings.bench
        self._course = course
        self._model_dir = model_dir
        self._climbs = climbs
        self._ceilings: dict[tuple[str, int, int], float] = {}

    def judge(self) -> verdict.Verdict | None:
        """Why Litport is slower than the model without a server; None where one of the two was not measured."""
        top = _last(self._climbs, "litport") or next((climb for climb in reversed(self._climbs) if climb.read_as), None)
        if top is None or top.measurements[0].time is None:
            return None
        bare = [climb for climb in self._climbs if climb.read_as is None and climb.users == top.users]
        reference = max(bare, key=_throughput, default=None)
        busy = [window["host"]["cpu_percent"] for window in top.utilisation]
        rows = top.measurements[-1].time or top.measurements[0].time
        machine = hardware.detect()
        model = self._plan.settings.models[self._plan.model]
        situation = verdict.Situation(
            model=model,
            time=rows,
            users=top.users,
            cores=machine.cores,
            on_cpu=not machine.gpus or (isinstance(model, LitServeModel) and model.accelerator == "cpu"),
            reference=reference.rung if reference else "",
            ratio=_throughput(top) / _throughput(reference) if reference else None,
            busy_share=sum(busy) / len(busy) / 100 if busy and None not in busy else None,
        )
        return verdict.judge(situation)

    def document(
        self, started_at: float, found: verdict.Verdict | None, confirmed: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        """The result."""
        settings = self._plan.settings
        model = settings.models[self._plan.model]
        dtype = str(model.args.get("dtype")) if isinstance(model, VllmModel) and "dtype" in model.args else None
        baseline = next((climb for climb in self._climbs if climb.answers), None)
        rungs = []
        findings: list[Finding] = []
        for climb in self._climbs:
            findings += self._findings(climb)
            used = efficiency.judge(climb, self._model_dir, dtype, self._bench.price_per_hour)
            rung = result.rung_document(climb, self._bench, baseline, self._generator(climb), used)
            if self._plan.require_parity and rung["parity"] and not rung["parity"]["holds"]:
                share = rung["parity"]["exact_share"]
                findings.append(Finding("parity", climb.rung, f"{share:.0%} of its answers are those of the baseline"))
            rung["knee"] = climb.users == self._knee(climb.rung)
            rungs.append(rung)
        return result.document(
            command=self._plan.command,
            started_at=started_at,
            model=self._plan.model,
            settings={
                "model": model.model_dump(mode="json", exclude_unset=True),
                "bench": self._bench.model_dump(mode="json"),
            },
            workload_digest=self._course.digest(),
            rungs=rungs,
            findings=findings,
            verdict=asdict(found) if found else None,
            confirmed=confirmed,
        )

    def _knee(self, rung: str) -> int | None:
        levels = [
            (climb.users, _throughput(climb), sum(one.e2e_s for one in climb.measurements) / len(climb.measurements))
            for climb in self._climbs
            if climb.rung == rung
        ]
        return figures.knee(levels)

    def _findings(self, climb: Climb) -> list[Finding]:
        items = self._course.items()
        found: list[Finding] = []
        for measurement, window in zip(climb.measurements, climb.utilisation, strict=True):
            throttled_s = window["host"]["throttled_s"]
            facts = Facts(
                rung=climb.rung,
                measurement=measurement,
                users=(climb.batch_size or 1) if climb.read_as is None and climb.batch_size else climb.users,
                offered_per_s=arrivals.offered_rate_per_s(items[: len(measurement.records)]),
                expected_hit_rate=workload.expected_hit_rate(self._course.workload, items),
                ceiling_per_s=self._ceiling(climb),
                throttled=None if throttled_s is None else throttled_s / (measurement.end_s - measurement.begin_s),
            )
            found += validity.check(facts, self._bench)
        count = sum(len(measurement.records) for measurement in climb.measurements)
        found += validity.check_size(climb.rung, count, self._bench)
        return list(dict.fromkeys(found))

    def _ceiling(self, climb: Climb) -> float | None:
        if climb.read_as is None:
            return None
        parts = [len(record.chunk_s) for one in climb.measurements for record in one.records if record.chunk_s]
        key = (climb.read_as, max(1, round(sum(parts) / max(len(parts), 1))), climb.users)
        if key not in self._ceilings:
            self._ceilings[key] = ladder.ceiling_per_s(*key, self._bench.load.generators)
        return self._ceilings[key]

    def _generator(self, climb: Climb) -> dict[str, Any] | None:
        costs = [cost for measurement in climb.measurements for cost in measurement.costs]
        ceiling = self._ceiling(climb)
        if not costs or ceiling is None:
            return None
        fastest = max(validity.request_rate(measurement) for measurement in climb.measurements)
        items = self._course.items()
        sent = [sorted(record.sent_s for record in one.records) for one in climb.measurements]
        return {
            "ceiling_requests_per_s": ceiling,
            "share_of_ceiling": fastest / ceiling,
            "cpu_share": max(cost.cpu_s / cost.wall_s for cost in costs),
            "lag_p99_s": max(cost.lag_p99_s for cost in costs),
            "offered_per_s": arrivals.offered_rate_per_s(items),
            "achieved_per_s": sum((len(one) - 1) / (one[-1] - one[0]) for one in sent if one[-1] > one[0]) / len(sent),
        }


def _confirm(rungs: Ladder, course: Course, advice: verdict.Advice, say: Say) -> dict[str, Any]:
    """Litport as it is and as advised, A B B A, and what became of throughput and latency."""
    advised = f"litport with {advice.setting}={advice.value}"

    def both() -> list[Rung]:
        changed = rungs.rung("litport", (), {advice.setting: advice.value})
        assert isinstance(changed, ServerRung)
        return [rungs.rung("litport", ()), replace(changed, name=advised)]

    load = course.bench.load
    if load.shape == "ramp":  # at its most users only
        closed = course.bench.model_copy(update={"load": load.model_copy(update={"shape": "closed"})})
        course = replace(course, bench=closed)
    plain, tried = ladder.climb(both, course, say, passes=2)
    throughput = [other.throughput_per_s / one.throughput_per_s for one, other in _pairs(plain, tried)]
    latency = [other.e2e_s / one.e2e_s for one, other in _pairs(plain, tried)]
    return {
        "setting": advice.setting,
        "value": advice.value,
        "throughput_ratio": sum(throughput) / len(throughput),
        "throughput_ratios": throughput,
        "e2e_ratio": sum(latency) / len(latency),
        "e2e_ratios": latency,
        "helped": min(throughput) > 1 or (max(latency) < 1 and min(throughput) > 0.98),
    }


def _pairs(one: Climb, other: Climb) -> list[tuple[Measurement, Measurement]]:
    return list(zip(one.measurements, other.measurements, strict=True))


def _throughput(climb: Climb) -> float:
    spent_s = [measurement.end_s - measurement.begin_s for measurement in climb.measurements]
    done = [one.throughput_per_s * time_s for one, time_s in zip(climb.measurements, spent_s, strict=True)]
    return sum(done) / sum(spent_s)


def _last(climbs: Sequence[Climb], rung: str) -> Climb | None:
    return next((climb for climb in reversed(climbs) if climb.rung == rung), None)
