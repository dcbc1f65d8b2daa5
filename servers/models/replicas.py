"""Replicas: a model is served by more instances or by fewer, while it serves."""

import asyncio
from collections.abc import Sequence

from servers.models.instance import Instance, State
from servers.models.loader import Loader
from servers.models.model import Model
from servers.models.room import measure, shares_asleep, shares_of
from servers.models.start import NoRoomError, StartError
from servers.models.supervisor import Supervisor
from servers.models.trial import SwapError

_POLL_S = 0.1


class Replicas:
    """Changes the number of instances of the models of one supervisor."""

    def __init__(self, supervisor: Supervisor, loader: Loader) -> None:
        self._supervisor = supervisor
        self._loader = loader

    async def add(self, model: Model, additions: Sequence[Instance]) -> None:
        """Serve the model by these instances, too, and return once they are ready. Raises SwapError."""
        try:
            await self._loader.rouse(model)
        except StartError as problem:
            raise SwapError(f"{model.name} does not wake: {problem}") from None
        if model.state is State.UNLOADED:
            model.instances = (*model.instances, *additions)
            self._supervisor.rest(model)
            return
        size_bytes = model.residence.size_bytes // len(model.instances)
        try:
            await self._loader.room.fit(model, size_bytes * len(additions), shares_of(model, additions))
        except NoRoomError as problem:
            raise SwapError(f"{model.name} has no room for {len(additions)} more: {problem}") from None
        model.instances = (*model.instances, *additions)
        model.residence.gpu_shares = shares_of(model, model.instances)
        self._supervisor.begin(model)
        await until_settled(additions)
        if failures := [instance for instance in additions if instance.state is not State.READY]:
            await self._take_away(model, additions)
            raise SwapError(f"a replica did not start: {failures[0].detail}; {model.name} has {len(model.instances)}")
        await measure(model)

    async def keep(self, model: Model, count: int) -> None:
        """Serve the model by so many of its instances alone; the others answer first what they have."""
        by_state = sorted(model.instances, key=lambda instance: instance.state is not State.READY)
        await self._take_away(model, by_state[count:])
        await measure(model)

    async def _take_away(self, model: Model, instances: Sequence[Instance]) -> None:
        """Let these instances take no new requests, and end them when those that they have are answered."""
        model.instances = tuple(instance for instance in model.instances if instance not in instances)
        while any(instance.in_flight for instance in instances):  # noqa: ASYNC110 # see Room: they tell nobody
            await asyncio.sleep(_POLL_S)
        await self._supervisor.end(model, State.STOPPED, instances)
        asleep = model.residence.sleep_level and not model.residence.is_waking
        model.residence.gpu_shares = shares_asleep(model) if asleep else shares_of(model, model.instances)


async def until_settled(instances: Sequence[Instance]) -> None:
    """Return once each of the instances is ready, or will not be by itself."""
    at_rest = (State.READY, State.ASLEEP, State.FAILED, State.UNLOADED, State.STOPPED)
    while any(instance.state not in at_rest for instance in instances):  # noqa: ASYNC110 # starts take seconds
        await asyncio.sleep(_POLL_S)
