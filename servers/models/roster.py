"""The roster: which models there are. It adds, removes and replaces models while the others serve.

A model object is one version of a model. Requests belong to the version that the model's name led to when they came:
those that the old one has are answered by it, later ones wait in the row of the new one until that is ready.
"""

from servers.models.loader import Loader
from servers.models.model import Model
from servers.models.supervisor import Supervisor


class Roster:
    """Changes the models of one supervisor. Callers see to it that one change of a name goes on at a time."""

    def __init__(self, supervisor: Supervisor, loader: Loader) -> None:
        self._supervisor = supervisor
        self._loader = loader

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

    async def remove(self, model: Model) -> None:
        """End a model once the requests that it has are answered. It takes no new ones; then nobody knows its name."""
        await self._loader.retire(model)
        self._supervisor.forget(model)
        for instance in model.instances:
            for file in instance.socket.parent.glob(f"{instance.socket.stem}.*"):
                file.unlink(missing_ok=True)

    async def replace(self, old: Model, new: Model) -> None:
        """Let a new version take the place of a model; it may have another name. Returns once it is ready.

        The new one starts when the old one has ended, as the memory may not hold both. Requests that come meanwhile
        wait in its row. Raises StartError as `add` does.
        """
        async with new.residence.lock:  # a request begins its load, which waits for this
            self._enter(new)
            await self.remove(old)
        await self.load(new)

    def _enter(self, model: Model) -> None:
        model.residence.close()
        self._supervisor.rest(model)
        self._supervisor.install(model)
