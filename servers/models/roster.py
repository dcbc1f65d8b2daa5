"""The roster: which models there are. It adds, removes and replaces models while the others serve.

A model object is one version of a model. Requests belong to the version that the model's name led to when they came:
those that the old one has are answered by it, later ones by the new one. Where the new one cannot start beside it, they
wait in its row.
"""

import asyncio
import contextlib

from configs.settings import ModelSettings
from servers.engines.base import WRONG_ANSWER, Adaptable, Card
from servers.engines.connection import CONNECTION_LOST
from servers.models.instance import Instance, State
from servers.models.loader import Loader
from servers.models.model import Model
from servers.models.replicas import until_settled
from servers.models.room import measure
from servers.models.start import NoRoomError, StartError
from servers.models.supervisor import Supervisor
from servers.processes.pause import pausable_timeout

_ADAPT_BACK_S = 10.0
_POLL_S = 0.1


class Roster:
    """Changes the models of one supervisor. Callers see to it that one change of a name goes on at a time."""

    def __init__(self, supervisor: Supervisor, loader: Loader) -> None:
        self._supervisor = supervisor
        self._loader = loader
        self._numbers: dict[str, int] = {}
        self._removals: set[Model] = set()

    async def add(self, model: Model) -> None:
        """Offer a new model, and return once it is ready, or at once where it is loaded on demand.

        Raises StartError. The model is then there without processes, and the next request tries to load it.
        """
        self._enter(model)
        await self.load(model)

    async def load(self, model: Model) -> None:
        """See that a model that is loaded at the start is loaded. Raises StartError."""
        if model.settings.load == "at_start":
            await self._loader.load(model)
            model.residence.on_demand = False  # it has started as it would have with the platform

    async def adapt(self, model: Model, settings: ModelSettings) -> None:
        """Bring the processes of a model to settings that they can take over while they serve (`Model.adapted`).

        Raises StartError for what they refuse; they are brought back to the old settings then.
        """
        await until_settled(model.instances)
        await self._loader.rouse(model)
        before, engines = [model.engine_of(instance) for instance in model.instances], model.adapted(settings)
        if engines is None:
            raise StartError("its processes cannot take the change over any more; make it again")
        model.set_engines(engines)
        try:
            async with pausable_timeout(settings.start_timeout_s):
                cards = [await _adapt(instance) for instance in model.instances]
        except (*WRONG_ANSWER, *CONNECTION_LOST) as problem:
            model.set_engines(before)
            await _adapt_back(model)
            raise StartError(str(problem) or f"not within {settings.start_timeout_s:g} s (start_timeout_s)") from None
        model.residence.card = None
        for instance, card in zip(model.instances, cards, strict=True):
            if instance.card is not None:
                instance.card = card

    async def remove(self, model: Model) -> None:
        """End a model once the requests that it has are answered. It takes no new ones; then nobody knows its name."""
        self._removals.add(model)
        try:
            await self._loader.retire(model)
            self._supervisor.forget(model)
            for instance in model.instances:
                for file in instance.socket.parent.glob(f"{instance.socket.stem}.*"):
                    file.unlink(missing_ok=True)
        finally:
            self._removals.discard(model)

    def number(self, model: Model) -> None:
        """Give a new version of a model its number; each is given once."""
        self._numbers[model.name] = self._numbers.get(model.name, 1) + 1
        model.version = f"v{self._numbers[model.name]}"

    async def replace(self, old: Model, new: Model) -> None:
        """Let a new version take the place of a model; it may have another name. Returns once the old one has ended.

        The new one starts beside the old one; where the memory does not hold both, the old one ends first. Raises
        StartError; the old one then goes on.
        """
        self.number(new)
        if new.settings.load == "on_demand" and old.state is not State.READY:
            await self.replace_in_turn(old, new)  # nothing serves, and nothing is asked for
            return
        try:
            await self.start_beside(old, new)
        except NoRoomError:
            await self.replace_in_turn(old, new)
            return
        except Exception:
            await self.remove(new)
            raise
        self.take_over(old, new)
        await self.remove(old)

    async def start_beside(self, old: Model, new: Model) -> None:
        """Start a version beside the one that serves; no request reaches it. Raises StartError, NoRoomError."""
        while new in self._removals:  # noqa: ASYNC110 # see Room; it was the way back, and its end has just begun
            await asyncio.sleep(_POLL_S)
        await measure(old)
        residence = new.residence
        residence.close()
        residence.is_beside = True
        if old.engine.kind == new.engine.kind:
            residence.correction = old.residence.measured_correction
        new.is_leaving = False
        await self._loader.rouse(new)  # a way back may have slept when it became one
        self._supervisor.rest(new)
        self._supervisor.beside.add(new)
        await self._loader.load(new)
        await until_settled(new.instances)
        if failures := [instance.detail for instance in new.instances if instance.state is not State.READY]:
            raise StartError(f"one of its replicas did not start: {failures[0]}")
        residence.on_demand = new.settings.load == "on_demand"

    def take_over(self, old: Model, new: Model) -> None:
        """Let the new version have all requests from now on; the old one answers those that it has."""
        new.is_leaving = new.residence.is_beside = False
        _hand_over(old, new)
        self._supervisor.install(new)
        old.is_leaving, old.trial = True, None
        self._loader.review()

    async def replace_in_turn(self, old: Model, new: Model) -> None:
        """End the old version, and start the new one; requests wait meanwhile, in its row.

        Raises StartError; the old one starts again then, and those that waited are refused.
        """
        try:
            await self._exchange(old, new)
        except Exception:
            old.is_leaving = False
            await self._exchange(new, old)
            raise
        _hand_over(old, new)

    async def _exchange(self, old: Model, new: Model) -> None:
        new.residence.is_beside = False
        new.residence.forgive()
        async with new.residence.lock:  # a request begins its load, which waits for this
            self._enter(new)
            await self.remove(old)
        await self.load(new)

    def _enter(self, model: Model) -> None:
        model.residence.close()
        self._supervisor.rest(model)
        self._supervisor.install(model)


def _hand_over(old: Model, new: Model) -> None:
    """What passes from version to version."""
    new.swaps = old.swaps
    if new.recording is not None and old.recording is not None:
        new.recording.extend(old.recording)


async def _adapt(instance: Instance) -> Card | None:
    """What the instance offers once it is brought to the settings of its engine; None where it does not run."""
    if not isinstance(instance.engine, Adaptable) or instance.connection is None or instance.card is None:
        return None
    return await instance.engine.adapt(instance.connection, instance.card)


async def _adapt_back(model: Model) -> None:
    """Bring what runs back to the settings of its engine, as far as it still answers; a start does the rest."""
    for instance in model.instances:
        with contextlib.suppress(*WRONG_ANSWER, *CONNECTION_LOST):
            async with pausable_timeout(_ADAPT_BACK_S):
                await _adapt(instance)
