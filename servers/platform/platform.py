"""The platform: models, supervisor, front door and metrics, built from the settings and run as one."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from configs.errors import UserError
from configs.loading import LoadedSettings
from configs.settings import LitportSettings
from servers.gateway.front_door import FrontDoor
from servers.gateway.keys import Keyring
from servers.gateway.limits.gate import Gate
from servers.gateway.limits.store import Store
from servers.gateway.server import Server, until_ended
from servers.gateway.status import About
from servers.metrics.hardware import HardwareCollector, make_sampler
from servers.metrics.models import ModelCollector
from servers.metrics.page import Page
from servers.models.loader import Loader
from servers.models.model import Model
from servers.models.replicas import Replicas
from servers.models.roster import Roster
from servers.models.supervisor import Supervisor
from servers.models.versions import Versions
from servers.platform.admin import Admin
from servers.platform.declaration import Declaration, Read
from servers.platform.factory import ModelFactory
from servers.platform.workshop import Workshop
from servers.processes.reaper import Reaper

_log = logging.getLogger("litport.platform")


class Platform:
    """All parts of one platform; `run_dir` holds the sockets of its instances, and `reaper` ends their processes.

    `on_change` is called after each step of a model, and `read` reads recipes while it runs. Raises UserError for a
    certificate or an audit file that cannot be used.
    """

    def __init__(
        self,
        settings: LitportSettings,
        keyring: Keyring,
        about: About,
        run_dir: Path,
        reaper: Reaper,
        on_change: Callable[[Model], None] = lambda _: None,
        read: Read | None = None,
    ) -> None:
        self._settings = settings
        self._about = about
        self._stack = contextlib.AsyncExitStack()
        self._serving: asyncio.Task[None] | None = None
        self.factory = ModelFactory(run_dir)
        self.models = {name: self.factory.make(settings, name) for name in settings.models}
        self.supervisor = Supervisor(self.models, settings.server.cache_dir, reaper, on_change)
        self.loader = Loader(self.supervisor, settings.server.memory_budget_bytes)
        self.roster = Roster(self.supervisor, self.loader)
        self.versions = Versions(self.loader, self.roster)
        self._sampler = make_sampler(settings.telemetry, self._groups)
        self.front_door = FrontDoor(self.supervisor, self.loader, settings, keyring, about, self._sampler)
        self.front_door.metrics.register(ModelCollector(self.models, about.version))
        if self._sampler is not None:
            self.front_door.metrics.register(HardwareCollector(self._sampler))
        self._server = Server(self.front_door, settings)
        revisions = self.front_door.revisions
        self.declaration = Declaration(self, settings, keyring, read or _read_nothing, revisions.turn)
        revisions.workshop = Workshop(
            self._in_force, self.factory, self.versions, Replicas(self.supervisor, self.loader)
        )

    @property
    def failed(self) -> bool:
        """Whether a required model has failed for good."""
        return self.supervisor.fatal.is_set()

    async def start(self, listener: socket.socket, metrics_listener: socket.socket | None = None) -> None:
        """Serve on the listening sockets and begin to start the models."""
        if self._sampler is not None:
            self._stack.enter_context(self._sampler)
        if metrics_listener is not None:
            await self._stack.enter_async_context(Page(metrics_listener, self.front_door.metrics, self.models))
            _log.info("metrics at %s", self._about.metrics_address)
        if (url := self._settings.limits.redis_url) is not None:
            store = Store(url.get_secret_value(), self.front_door.metrics)
            self.front_door.gate = Gate(await self._stack.enter_async_context(store))
        self._serving = asyncio.create_task(self._server.serve([listener]))
        door, port = self.front_door, listener.getsockname()[1]
        admin = Admin(port, door.directory, door.changes, door.revisions, self.declaration)
        await self._stack.enter_async_context(admin)
        self.supervisor.start()
        self.loader.start()

    async def wait(self) -> None:
        """Return when a required model has failed for good, or the server has ended."""
        assert self._serving is not None
        await until_ended(self._serving, self.supervisor.fatal)

    async def drain(self) -> None:
        """Reject new requests and wait for those in flight, at most `server.drain_timeout_s`."""
        timeout_s = self._settings.server.drain_timeout_s
        self.declaration.end()
        self.front_door.revisions.is_over = True
        self.supervisor.drain()
        self.loader.drain()
        if self.front_door.in_flight:
            _log.info("waiting for %d requests in flight, at most %g s", self.front_door.in_flight, timeout_s)
        try:
            async with asyncio.timeout(timeout_s):
                await self.front_door.drain()
        except TimeoutError:
            count = self.front_door.in_flight
            _log.warning("%d requests were cut off after %g s (server.drain_timeout_s)", count, timeout_s)

    async def stop(self) -> None:
        """End the models, then the server."""
        await self.declaration.stop()
        await self.versions.stop()
        await self.loader.stop()
        await self.supervisor.stop()
        self._server.stop()
        if self._serving is not None:
            await self._serving
        self.front_door.close()
        await self._stack.aclose()

    def reload(self, settings: LitportSettings, keyring: Keyring) -> None:
        """Apply keys and limits to new requests, and what else is not about models; see `Declaration`."""
        self._settings = settings
        self.front_door.reload(settings, keyring)
        self._server.reload(settings.limits)
        self.loader.room.budget_bytes = settings.server.memory_budget_bytes
        self.loader.review()

    def audit(self, **fields: Any) -> None:
        """Write a line of the audit log about a change."""
        self.front_door.ledger.change(**fields)

    def forget(self, name: str) -> None:
        """Drop the series of a model that is gone."""
        self.front_door.ledger.metrics.forget(name)

    def _in_force(self) -> LitportSettings:
        """The settings, with those of the versions that serve."""
        models = {name: model.settings for name, model in self.models.items()}
        return self._settings.model_copy(update={"models": models})

    def _groups(self) -> dict[str, tuple[int, ...]]:
        """The process groups of each model that has some."""
        groups: dict[str, tuple[int, ...]] = {}
        for model in self.supervisor.all_models:  # the sampler's thread asks
            ids = tuple(instance.group_id for instance in model.instances if instance.group_id is not None)
            if ids:
                groups[model.name] = (*groups.get(model.name, ()), *ids)
        return groups


def _read_nothing(_: Sequence[Path]) -> LoadedSettings:
    raise UserError("this platform was not started from recipes, and takes none")
