"""What the harness knows of an engine, in one object that the engine's kind names (`servers.engines.kind`).

An engine without such an object is measured through Litport and against URLs, with the model's own example as the
workload; the time behind the front door is then one row.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from benchmarks.analysis.breakdown import RowReader
from benchmarks.analysis.layer import Layer
from benchmarks.analysis.verdict import Cause
from benchmarks.load.request import Endpoint
from benchmarks.rungs.base import Rung
from benchmarks.rungs.context import RungContext
from configs.bench import Bench
from configs.settings import ModelSettings
from servers.engines import registry

LITPORT = "litport"
"""The rung that every engine has: the model through Litport."""


@dataclass(frozen=True)
class EngineHarness:
    """An engine as the harness sees it; functions take the settings of a model of the engine.

    `rungs` are the names of its ladder, the baseline first, and `make` makes one, other than `litport` and URLs;
    `ingress` makes the model behind Ray's own HTTP, in so many replicas. `workload` is the kind of workload that suits
    a model, `endpoint` where it takes requests through Litport, by its settings and its name. `read_rows` makes rows of
    the engine's series, and `causes` explain its layers. `example` is a JSON request, `dtype` the precision that the
    model computes in, where the settings say so, and `on_cpu` whether they put it on the processors.
    """

    rungs: Sequence[str] = (LITPORT,)
    make: "Callable[[RungContext, str], Rung] | None" = None
    ingress: "Callable[[RungContext, str, int | None], Rung] | None" = None
    workload: Callable[[Any], str] = lambda _: "example"
    endpoint: Callable[[Any, str], Endpoint] = lambda _, name: Endpoint("json", f"/predict/{name}")
    read_rows: RowReader | None = None
    causes: Mapping[Layer, Cause] = field(default_factory=dict)
    example: Callable[[Any], Any] = lambda model: getattr(model, "example", None)
    dtype: Callable[[Any], str | None] = lambda _: None
    on_cpu: Callable[[Any], bool] = lambda _: False

    def workload_kind(self, bench: Bench, model: Any) -> str:
        """The kind of workload that the settings name, or else the one that suits the model."""
        return bench.workload.kind or self.workload(model)


def harness_of(model: ModelSettings) -> EngineHarness:
    """The harness object of the engine that the settings of a model name."""
    reference = registry.kind_of(model).harness
    return EngineHarness() if reference is None else _load(reference)


def row_readers() -> list[RowReader]:
    """What makes rows of series, for every engine: a URL may be a server of any."""
    harnesses = [_load(kind.harness) for kind in registry.kinds() if kind.harness]
    return [harness.read_rows for harness in harnesses if harness.read_rows]


def _load(reference: str) -> EngineHarness:
    module, _, name = reference.partition(":")
    harness = getattr(import_module(module), name)
    assert isinstance(harness, EngineHarness), f"{reference} is no EngineHarness"
    return harness
