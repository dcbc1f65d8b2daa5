"""The workload that a recipe measures a model with, as requests to compare two versions by."""

import subprocess

import msgspec

from configs.errors import UserError
from configs.settings import LitportSettings
from servers.models.question import Question
from servers.processes.interpreter import module_argv

_MODULE = "benchmarks.questions"  # servers do not import benchmarks
_TIMEOUT_S = 60


def questions(settings: LitportSettings, name: str, count: int) -> tuple[Question, ...]:
    """So many requests of `bench.workload`; none where the recipe has no such section for this model.

    Raises UserError for a workload that cannot be made.
    """
    bench = settings.bench
    subject = bench.model or (name if len(settings.models) == 1 else None)
    if subject != name or "workload" not in bench.model_fields_set:
        return ()
    models = {name: settings.models[name].model_dump(mode="json", exclude_unset=True)}
    order = {"model": name, "models": models, "bench": bench.model_dump(mode="json", exclude_unset=True)}
    try:
        child = subprocess.run(
            module_argv(_MODULE),
            input=msgspec.json.encode({**order, "count": count}),
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise UserError(f"bench.workload: it could not be made: {problem}") from None
    if child.returncode != 0:
        lines = child.stderr.decode(errors="replace").strip().splitlines()
        raise UserError(lines[-1] if lines else f"bench.workload: it could not be made: exit {child.returncode}")
    return tuple(msgspec.json.decode(child.stdout, type=list[Question]))
