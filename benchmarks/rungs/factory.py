"""Makes the rungs of a ladder by their names in `bench.rungs`."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from benchmarks.load.request import Endpoint
from benchmarks.load.workload import Item
from benchmarks.rungs.base import Rung
from benchmarks.rungs.context import RungContext
from benchmarks.rungs.harness import LITPORT, EngineHarness
from benchmarks.rungs.server.rung import ServerRung
from configs.bench import RAY_RUNG
from configs.errors import UserError


class RungFactory:
    """Makes rungs of the context's model, whose engine has this harness object."""

    def __init__(self, context: RungContext, harness: EngineHarness) -> None:
        self._context = context
        self._harness = harness

    def rungs(self, sample: Sequence[Item]) -> list[Rung]:
        """The rungs of the settings, or all that the model's engine has. Raises UserError for an unknown one."""
        names = self._context.settings.bench.rungs or self._harness.rungs
        for name in names:
            if RAY_RUNG.fullmatch(name):
                self._check_cluster(name)
            elif name.partition("[")[0] not in self._harness.rungs and "://" not in name:
                raise UserError(
                    f"bench.rungs: expected {', '.join(self._harness.rungs)} or a URL for the model "
                    f"{self._context.name!r}, got {name}"
                )
        context = replace(self._context, sample=sample)
        return [self._make(context, name) for name in names]

    def litport(self, overrides: Mapping[str, Any] | None = None) -> ServerRung:
        """The model through Litport; `overrides` change its settings."""
        return self._context.litport(self._endpoint(), overrides or {})

    def _make(self, context: RungContext, name: str) -> Rung:
        if name == LITPORT:
            return self.litport()
        if match := RAY_RUNG.fullmatch(name):
            replicas = int(match[2]) if match[2] else None
            if match[1] == "ray":
                return context.gateway(name, self._endpoint(), replicas)
            assert self._harness.ingress is not None
            return self._harness.ingress(context, name, replicas)
        if self._harness.make is None or "://" in name:
            kind = self._harness.workload_kind(context.settings.bench, context.model)
            return context.url(name, self._endpoint(), kind)
        return self._harness.make(context, name)

    def _check_cluster(self, name: str) -> None:
        if self._context.settings.cluster.dashboard is None:
            raise UserError(f"bench.rungs: {name} needs cluster.dashboard, the address of Ray's dashboard")
        if name.startswith("ray-ingress") and self._harness.ingress is None:
            raise UserError(f"bench.rungs: {name} measures a LitAPI, which {self._context.name!r} is not")

    def _endpoint(self) -> Endpoint:
        return self._harness.endpoint(self._context.model, self._context.name)
