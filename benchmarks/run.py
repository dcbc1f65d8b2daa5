"""A benchmark run: from a recipe to a result. The ladder is measured, then analysed and judged, then concluded."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks import assessment, result
from benchmarks.analysis.validity import Finding
from benchmarks.confirmation import confirm
from benchmarks.course import Course
from benchmarks.environment import Environment
from benchmarks.ladder import Report, measure_ladder, with_ceilings
from benchmarks.load.request import calls
from benchmarks.result import Result
from benchmarks.rungs.context import RungContext
from benchmarks.rungs.factory import RungFactory
from benchmarks.rungs.harness import LITPORT, harness_of, row_readers
from benchmarks.rungs.process import RungError
from configs.errors import UserError
from configs.settings import LitportSettings
from servers.processes.reaper import Reaper
from servers.store import Store, sources


@dataclass(frozen=True)
class Plan:
    """The settings, the model among them that is measured, and the command line that asked for it."""

    settings: LitportSettings
    model: str
    command: Sequence[str]
    require_parity: bool = False
    confirm: bool = False


def choose_model(settings: LitportSettings) -> str:
    """The name of the model to measure. Raises UserError when the settings do not say which."""
    names = ", ".join(settings.models) or "none"
    if settings.bench.model is not None:
        if settings.bench.model not in settings.models:
            raise UserError(f"bench.model: expected a model of the recipe ({names}), got {settings.bench.model!r}")
        return settings.bench.model
    if len(settings.models) != 1:
        raise UserError(f"bench.model: expected the name of the model to measure, one of {names}")
    return next(iter(settings.models))


def run(plan: Plan, folder: Path, report: Report) -> Result:
    """Measure the ladder and return the result; requests.jsonl and logs go into `folder`.

    Raises RungError, UserError.
    """
    with Reaper(Path(tempfile.mkdtemp(prefix="litport-bench-"))) as reaper:  # which removes the folder
        return _run(plan, folder, report, reaper)


def _run(plan: Plan, folder: Path, report: Report, reaper: Reaper) -> Result:
    started_at = time.time()
    settings, bench = plan.settings, plan.settings.bench
    model = settings.models[plan.model]
    harness = harness_of(model)
    environment = Environment.detect()
    model_dir = _pull(plan, report)
    logs = folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    rungs = RungFactory(RungContext(settings, plan.model, model_dir, logs, row_readers(), reaper), harness)
    kind, example = harness.workload_kind(bench, model), harness.example(model)
    if kind == "example" and example is None:
        raise UserError("models.NAME.example: expected a JSON request to measure this API with; set it in the recipe")
    course = Course.plan(bench, kind, example)
    calls(course.items[:1], harness.endpoint(model, plan.model), plan.model)  # raises where the kind is not the model's

    ladder = measure_ladder(partial(rungs.rungs, course.items), course, report, bench.passes)
    result.write_requests(folder, ladder.results)
    ladder = with_ceilings(ladder, bench.load, report)
    analysis = assessment.analyse(ladder, course, model_dir, harness.dtype(model), require_parity=plan.require_parity)
    verdict = assessment.judge(ladder.results, harness, model, environment.machine)
    advice = verdict.advice if plan.confirm and verdict and not ladder.gap else None
    confirmed = None
    try:
        confirmed = confirm(rungs, course, advice, report) if advice else None
    except (RungError, KeyboardInterrupt) as problem:
        message = f"the advice could not be tried: {str(problem) or 'it was interrupted'}"
        analysis.findings.append(Finding("confirm", LITPORT, message))
    return result.conclude(
        command=plan.command,
        started_at=started_at,
        model=plan.model,
        settings=result.Settings(model.model_dump(mode="json", exclude_unset=True), bench.model_dump(mode="json")),
        workload_digest=course.digest(),
        environment=environment,
        rungs=analysis.rungs,
        findings=analysis.findings,
        verdict=verdict,
        confirmed=confirmed,
    )


def _pull(plan: Plan, report: Report) -> Path | None:
    """The folder of the model's files, or the file that its engine takes as it is; None for a model that has none."""
    model = plan.settings.models[plan.model]
    source = model.source
    if source is None:
        return None
    if not model.converts_gguf:
        return sources.file_of(source)
    report(f"model {source}")
    return Store(plan.settings.server.cache_dir).pull(source)
