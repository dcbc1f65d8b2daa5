"""Room: whether the memory holds one more model, and which one goes where it does not.

A model takes what its engine estimates until it was loaded once, and from then on what its processes took at the last
look. The models that want room stand in a row, so that none of them starves.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Protocol

from servers.engines.base import Needs, Sleeper
from servers.models.instance import Instance, State
from servers.models.model import Model
from servers.models.start import NoRoomError, NotWantedError, StartError
from servers.processes.group import ProcessGroup
from servers.telemetry.memory import memory

# How often a model that waits for room looks again: requests on their usual way tell nobody that they have ended.
_POLL_S = 0.1
_MIB = 1024**2
_ROUNDING = 1e-6


class Tenants(Protocol):
    """Those that share the room."""

    @property
    def all_models(self) -> list[Model]:
        """Every model that may have processes."""
        ...


class Room:
    """The memory that the models of a platform share: `budget_bytes`, or what is available where that is None.

    `unload` takes a model out of memory; one that may sleep gives back GPUs alone. `insisted` has the models that are
    loaded though nobody waits.
    """

    def __init__(
        self,
        tenants: Tenants,
        budget_bytes: int | None,
        unload: Callable[[Model, bool], Awaitable[None]],
        insisted: Collection[Model],
    ) -> None:
        self._tenants = tenants
        self.budget_bytes = budget_bytes
        self._unload = unload
        self._insisted = insisted
        self._row = asyncio.Lock()

    async def make(self, model: Model, needs: Needs) -> None:
        """Wait until there is room for the model, unload others for it, and count it from then on.

        A model that is loaded at the start, or is restarted, gets its room at once; so does one of unknown size that
        would be alone. Raises StartError for one that can never fit, NotWantedError where nobody waits for it any more,
        NoRoomError for a new version that does not fit beside the old one.
        """
        residence = model.residence
        residence.expect(needs.memory_bytes * len(model.instances))
        residence.gpu_shares = shares_of(model, model.instances)
        if residence.on_demand and not residence.has_room:
            async with self._row:
                if not residence.has_room:  # another of its instances may have made it
                    if residence.is_beside:
                        await self.fit(model, residence.size_bytes, residence.gpu_shares)
                    else:
                        await self._wait(model, residence.size_bytes, residence.gpu_shares)
                residence.has_room = True
        residence.has_room = True

    async def regain(self, model: Model) -> None:
        """Wait until a model that sleeps has room on its GPUs again, and count it there. Raises as `make`."""
        shares = shares_of(model, model.instances)
        async with self._row:
            model.residence.gpu_shares = {}
            await self._wait(model, None, shares)
            model.residence.gpu_shares = shares
            model.residence.is_waking = True

    def holds(self, size_bytes: int | None, gpu_shares: Mapping[str, float]) -> bool:
        """Whether there is so much free, without an unload; None is no memory at all."""
        return not self._shortage(size_bytes, gpu_shares)

    async def fit(self, model: Model, size_bytes: int, gpu_shares: Mapping[str, float]) -> None:
        """Make room for so much more of the model by what is idle. Raises NoRoomError where that is not enough."""
        for tenant in self._others(None):
            await measure(tenant)
        while shortage := self._shortage(size_bytes, gpu_shares):
            idle = [
                tenant
                for tenant in self._due(size_bytes, gpu_shares)
                if tenant.is_idle and (tenant.is_leaving or tenant.name != model.name)
            ]
            if not idle:
                raise NoRoomError(shortage)
            victim = _least_missed(idle)
            await self._unload(victim, self._may_sleep(victim, size_bytes))

    def next_out(self) -> Model | None:
        """The model that would be unloaded next: the one that is idle for the longest time."""
        movable = [model for model in self._others(None) if _is_movable(model) and model.state is State.READY]
        return min(movable, key=lambda model: (not model.is_idle, model.idle_since_s), default=None)

    async def _wait(self, model: Model, size_bytes: int | None, gpu_shares: Mapping[str, float]) -> None:
        for other in self._others(model):
            await measure(other)
        self._check_fits(model, size_bytes, gpu_shares)
        while self._shortage(size_bytes, gpu_shares):
            if model.admission.waiting == 0 and model not in self._insisted:
                raise NotWantedError("nobody waits for it any more")
            if victim := self._victim(size_bytes, gpu_shares):
                await self._unload(victim, self._may_sleep(victim, size_bytes))
            elif any(map(_is_movable, self._others(model))):
                await asyncio.sleep(_POLL_S)
            else:
                return  # nothing but the estimate says that it does not fit

    def _may_sleep(self, victim: Model, size_bytes: int | None) -> bool:
        """Whether memory for so much more is left where the victim keeps its weights there."""
        return self._missing_bytes((size_bytes or 0) + victim.residence.needs_bytes) <= 0

    def _others(self, model: Model | None) -> list[Model]:
        return [
            other
            for other in self._tenants.all_models
            if other is not model and other.residence.has_room and other.state is not State.FAILED
        ]

    def _missing_bytes(self, size_bytes: int | None) -> int:
        """By how much so much more exceeds what there is; 0 for None, which is not in the way of others."""
        if size_bytes is None:
            return 0
        others = self._others(None)
        if self.budget_bytes is not None:
            return size_bytes + sum(other.residence.size_bytes for other in others) - self.budget_bytes
        unseen = [other.residence.size_bytes for other in others if other.state not in (State.READY, State.ASLEEP)]
        return size_bytes + sum(unseen) - memory().available_bytes

    def _shortage(self, size_bytes: int | None, gpu_shares: Mapping[str, float]) -> str:
        """What there is too little of for so much more, or ""."""
        if size_bytes is not None and (missing_bytes := self._missing_bytes(size_bytes)) > 0:
            return f"it takes {_mib(size_bytes)} more, and {_mib(max(0, size_bytes - missing_bytes))} are free"
        for gpu in _full_gpus(gpu_shares, self._others(None)):
            free_share = 1 - sum(other.residence.gpu_shares.get(gpu, 0.0) for other in self._others(None))
            return f"it takes {gpu_shares[gpu]:g} of GPU {gpu} more, and {max(0.0, free_share):.3g} is free"
        return ""

    def _check_fits(self, model: Model, size_bytes: int | None, gpu_shares: Mapping[str, float]) -> None:
        """Raises StartError for a model of known size, or part of a GPU, that does not fit beside those that stay."""
        residents = [other for other in self._others(model) if not _is_movable(other)]
        for gpu in _full_gpus(gpu_shares, residents):
            terms = [f"{other.name} {share:g}" for other in residents if (share := other.residence.gpu_shares.get(gpu))]
            beside = f" beside {', '.join(terms)}, which stay" if terms else ""
            raise StartError(f"it takes {gpu_shares[gpu]:g} of GPU {gpu}, too much{beside}")
        if self.budget_bytes is None or model.residence.measured_bytes is None or size_bytes is None:
            return
        if size_bytes + sum(other.residence.size_bytes for other in residents) > self.budget_bytes:
            terms = [f"{other.name} ({_mib(other.residence.size_bytes)})" for other in residents]
            beside = f" beside {', '.join(terms)}, which stay" if terms else ""
            raise StartError(
                f"it took {_mib(size_bytes)} when it was last loaded, too much{beside}: "
                f"server.memory_budget_bytes is {_mib(self.budget_bytes)}"
            )

    def _victim(self, size_bytes: int | None, gpu_shares: Mapping[str, float]) -> Model | None:
        """The model to unload now: of the idle ones the least recently used, else the one that was loaded first.

        The requests that a busy one has in hand end before it goes, and new ones wait in its row: without that, two
        models with steady traffic would keep a third one out for ever.
        """
        due = self._due(size_bytes, gpu_shares)
        idle = [model for model in due if model.is_idle]
        if idle:
            return _least_missed(idle)
        return min(due, key=lambda model: model.residence.loaded_at_s, default=None)

    def _due(self, size_bytes: int | None, gpu_shares: Mapping[str, float]) -> list[Model]:
        """The models that may be unloaded now, and whose end makes room for so much more."""
        now_s = time.monotonic()
        gpus = None if self._missing_bytes(size_bytes) > 0 else {*_full_gpus(gpu_shares, self._others(None))}
        return [
            model
            for model in self._others(None)
            if _is_movable(model)
            and (gpus is None or gpus & model.residence.gpu_shares.keys())
            and (
                (model.state is State.ASLEEP and not model.residence.is_waking)
                or (
                    model.residence.is_open
                    and model.state is State.READY
                    and (model.is_leaving or now_s - model.residence.loaded_at_s >= model.settings.min_resident_s)
                )
            )
        ]


def shares_of(model: Model, instances: Iterable[Instance]) -> Mapping[str, float]:
    """The parts of GPUs that these instances of the model take together."""
    return _sum(model.engine_of(instance).needs(None).gpu_shares for instance in instances)


def shares_asleep(model: Model) -> Mapping[str, float]:
    """The parts of GPUs that the instances of a model keep together while it sleeps."""
    engines = map(model.engine_of, model.instances)
    return _sum(engine.shares_asleep() for engine in engines if isinstance(engine, Sleeper))


def _sum(parts: Iterable[Mapping[str, float]]) -> Mapping[str, float]:
    shares: defaultdict[str, float] = defaultdict(float)
    for part in parts:
        for gpu, share in part.items():
            shares[gpu] += share
    return dict(shares)


async def measure(model: Model) -> None:
    """Look at what the processes of a model take. While one of them is away its size stays as it was."""
    groups = [instance.group_id for instance in model.instances if instance.group_id and _is_whole(instance)]
    sizes = await asyncio.to_thread(lambda: [ProcessGroup(group_id).memory_bytes() for group_id in groups])
    if len(sizes) == len(model.instances) and None not in sizes and all(map(_is_whole, model.instances)):
        model.residence.measure(sum(filter(None, sizes)))


def _is_whole(instance: Instance) -> bool:
    """Whether it is up with all its processes."""
    connection = instance.connection
    return (
        instance.state in (State.READY, State.DRAINING, State.ASLEEP)
        and connection is not None
        and connection.is_complete
    )


def _full_gpus(gpu_shares: Mapping[str, float], tenants: Sequence[Model]) -> list[str]:
    """The GPUs on which there is too little for these parts beside those of the tenants."""
    return [
        gpu
        for gpu, share in gpu_shares.items()
        if share + sum(tenant.residence.gpu_shares.get(gpu, 0.0) for tenant in tenants) > 1 + _ROUNDING
    ]


def _least_missed(models: Iterable[Model]) -> Model:
    """The version kept for a rollback, if there is one, else one that sleeps, else the one that is idle for longest."""
    return min(models, key=lambda model: (not model.is_leaving, model.state is not State.ASLEEP, model.idle_since_s))


def _is_movable(model: Model) -> bool:
    """Whether the model may be unloaded to make room."""
    if model.is_leaving or model.residence.is_beside:
        return model.is_leaving
    settings = model.settings
    return not settings.pin and (settings.load == "on_demand" or settings.idle_unload_s is not None)


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / _MIB:,.0f} MiB"
