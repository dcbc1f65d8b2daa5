"""`litport replica`: one model of a recipe on a port for the front doors of other Litports.

It is the part of a platform below its front door: the supervisor with one model. Keys, limits and turns are the
gateway's.
"""

import asyncio
import contextlib
import logging
import shutil
import socket
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import uvloop

from configs.errors import UserError
from configs.loading import LoadedSettings
from configs.settings import LitportSettings
from servers.engines import registry
from servers.engines.kind import Site
from servers.gateway.address import address_of, bind
from servers.gateway.replica_door import ReplicaDoor
from servers.gateway.routes import openai
from servers.gateway.server import Server, until_ended
from servers.models.instance import Instance
from servers.models.model import Model
from servers.models.supervisor import Supervisor
from servers.platform.progress import Progress
from servers.platform.serve import raise_descriptor_limit, run_service
from servers.platform.targets import check_replica
from servers.processes.reaper import Reaper
from servers.processes.run_dir import make_run_dir

_log = logging.getLogger("litport.platform")

# How long gateways have to leave after they were told; their idle connections close by themselves in less.
_LEAVE_S = 5.0
_POLL_S = 0.02
# A gateway has bounded what it sends, and leaves by itself what takes too long.
_LIMITS: Mapping[str, float] = {
    "max_header_bytes": 2**20,
    "max_header_fields": 1000,
    "max_body_bytes": 2**40,
    "max_connections": 2**16,
    "write_timeout_s": 86400.0,
    "keep_alive_timeout_s": 75.0,  # longer than a gateway keeps an idle connection
}


def serve_replica(loaded: LoadedSettings, name: str, host: str, port: int) -> int:
    """Serve the model until a signal; the exit status is 0, or 1 when it failed for good. Raises UserError."""
    loaded = narrow(loaded, name, host)
    settings = loaded.settings
    listener = bind(host, port, "--host, --port")
    secret = check_replica(loaded)
    for note in loaded.notes:
        _log.warning("%s", note)
    raise_descriptor_limit(settings.limits.max_connections)
    run_dir = make_run_dir()
    try:
        address = address_of(listener, settings.server.tls_cert_file is not None)
        with Reaper(run_dir) as reaper, Progress(address) as progress:

            async def run() -> int:
                replica = Replica(settings, secret, run_dir, reaper, progress, listener.getsockname()[1])
                return await run_service(replica, replica.start(listener), progress, _keep_settings)

            status: int = uvloop.run(run())
            return status
    finally:
        shutil.rmtree(run_dir, ignore_errors=True)


class Replica:
    """The only model of the settings, its supervisor, and the port for gateways. Raises UserError for a certificate.

    `identity` tells replicas apart that a gateway finds by itself.
    """

    def __init__(
        self,
        settings: LitportSettings,
        secret: str,
        run_dir: Path,
        reaper: Reaper,
        progress: Progress,
        port: int,
        identity: str = "",
    ) -> None:
        self._drain_timeout_s = settings.server.drain_timeout_s
        self._progress = progress
        self._serving: asyncio.Task[None] | None = None
        model = _model(settings, run_dir, port)
        self._door = ReplicaDoor(model, secret, identity)
        self.supervisor = Supervisor({model.name: model}, settings.server.cache_dir, reaper, self._note)
        self._server = Server(self._door, settings)

    @property
    def demand(self) -> float:
        """See `ReplicaDoor.demand`."""
        return self._door.demand

    @property
    def has_gateways(self) -> bool:
        """See `ReplicaDoor.has_gateways`."""
        return self._door.has_gateways

    async def start(self, listener: socket.socket) -> None:
        """Serve on the listening socket and begin to start the model."""
        self._serving = asyncio.create_task(self._server.serve([listener]))
        self.supervisor.start()

    async def wait(self) -> None:
        """Return when the model has failed for good, or the server has ended."""
        assert self._serving is not None
        await until_ended(self._serving, self.supervisor.fatal)

    async def drain(self) -> None:
        """Take nothing new, end the requests in flight within `server.drain_timeout_s`, and let the gateways leave."""
        try:
            async with asyncio.timeout(self._drain_timeout_s):
                await self._door.drain()
        except TimeoutError:
            message = "%d requests were cut off after %g s (server.drain_timeout_s)"
            _log.warning(message, self._door.in_flight, self._drain_timeout_s)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LEAVE_S):
                while self._server.server_state.connections:  # noqa: ASYNC110 # uvicorn tells nobody of their end
                    await asyncio.sleep(_POLL_S)

    async def stop(self) -> None:
        """End the model, then the server."""
        await self.supervisor.stop()
        self._server.stop()
        if self._serving is not None:
            await self._serving

    def _note(self, model: Model) -> None:
        self._progress.changed(model)
        self._door.changed()


def narrow(loaded: LoadedSettings, name: str, host: str) -> LoadedSettings:
    """The settings with this model alone, loaded at the start. Raises UserError where there is none."""
    settings = loaded.settings
    model = settings.models.get(name)
    if model is None:
        names = ", ".join(settings.models) or "none"
        raise UserError(f"replica: expected the name of a model of the recipe, got {name!r}; there are: {names}")
    if registry.kind_of(model).addresses(model):
        raise UserError(f"replica: expected a model that runs here, but models.{name} is one of engine {model.engine}")
    if model.replicas != 1:
        value = model.replicas if isinstance(model.replicas, int) else "a range"
        raise UserError(f"models.{name}.replicas: expected 1, got {value}: start as many replicas, on ports")
    alone = model.model_copy(
        update={"instances": [], "fallback": None, "load": "at_start", "idle_unload_s": None, "required": True}
    )
    server = settings.server.model_copy(update={"host": host, "cors_origins": []})
    limits = settings.limits.model_copy(update=_LIMITS)
    return replace(
        loaded, settings=settings.model_copy(update={"models": {name: alone}, "limits": limits, "server": server})
    )


def _model(settings: LitportSettings, run_dir: Path, port: int) -> Model:
    ((name, model_settings),) = settings.models.items()
    site = Site(settings, run_dir / "0.sock", openai.PATHS)
    engine = registry.make_engine(name, model_settings, site)
    # Replicas of a model may share a machine, but not a log.
    log_file = settings.server.cache_dir / "logs" / f"{name.replace('/', '--')}.{port}.log"
    return Model(name, model_settings, engine, [Instance(site.socket, log_file, None, engine)])


def _keep_settings() -> None:
    _log.warning("a replica reads its settings at its start only")
