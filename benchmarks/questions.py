"""The workload of a recipe's bench section as requests, for `litport swap --compare`.

A process of its own, because the harness takes more to import than the front door has a use for. It reads a JSON
object with `model` (a name), `models`, `bench` and `count`, and writes a list of requests. A mistake in the workload is
exit 2.
"""

import sys

import msgspec

from benchmarks.load import workload
from benchmarks.load.request import calls
from benchmarks.rungs.harness import harness_of
from configs.errors import UserError
from configs.settings import LitportSettings
from servers.engines import registry
from servers.models.question import Question


def questions(settings: LitportSettings, name: str, count: int) -> list[Question]:
    """So many requests of the workload, as the model's process takes them. Raises UserError."""
    model, bench = settings.models[name], settings.bench
    harness = harness_of(model)
    kind = harness.workload_kind(bench, model)
    example = harness.example(model)
    if kind == "example" and example is None:
        raise UserError("bench.workload.kind: expected another one than example, as the model has none")
    spec = bench.workload.model_copy(update={"kind": kind})
    items = workload.make(spec, count, spec.seed, example=example)
    return [
        Question(None if call.path.startswith("/predict/") else call.path, call.body, call.content_type)
        for call in calls(items, harness.endpoint(model, name), name)
    ]


def main() -> int:
    """Answer one order."""
    order = msgspec.json.decode(sys.stdin.buffer.read())
    registry.register_installed()
    settings = LitportSettings.from_layers([{"models": order["models"], "bench": order["bench"]}])
    try:
        sys.stdout.buffer.write(msgspec.json.encode(questions(settings, order["model"], order["count"])))
    except UserError as problem:
        print(problem, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
