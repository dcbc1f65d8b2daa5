"""The running platform: supervisor and front door on one asyncio loop, from start to a clean end.

The public port is bound before any model is started, so that a port in use is known at once. On SIGTERM or Ctrl-C new
requests are refused, those in flight finish, then the models end; a second signal ends them at once. It refuses to
leave a process or a socket behind.
"""

import asyncio
import contextlib
import gc
import logging
import resource
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

import uvloop

from configs.errors import UserError
from configs.loading import Loaded
from configs.settings import LitportSettings, LitServeModel, Telemetry, VllmModel
from servers.engines.base import Engine
from servers.engines.litserve.engine import LitServeEngine
from servers.engines.vllm.engine import VllmEngine
from servers.gateway.address import address_of, bind
from servers.gateway.front_door import FrontDoor
from servers.gateway.keys import Keyring
from servers.gateway.listing import About
from servers.gateway.server import Server
from servers.metrics.hardware import sampling
from servers.metrics.page import Page
from servers.models.model import Model
from servers.models.supervisor import Supervisor
from servers.platform.progress import Progress
from servers.platform.reload import Reload
from servers.platform.targets import check
from servers.processes.reaper import Reaper

_log = logging.getLogger("litport.platform")


def serve(loaded: Loaded, load_again: Callable[[], Loaded], version: str) -> int:
    """Serve until told to stop; the exit status is 0, or 1 when a required model failed for good.

    `load_again` reads the settings anew, for SIGHUP. Raises UserError when the address cannot be had, SettingsError
    when the settings cannot be served.
    """
    settings = loaded.settings
    listener = bind(settings.server.host, settings.server.port)
    metrics_listener = _metrics_listener(settings.telemetry)
    keyring = check(loaded)
    _raise_descriptor_limit(settings.limits.max_connections)
    try:
        run_dir = Path(tempfile.mkdtemp(prefix="litport-"))  # mode 0700: nobody else reaches the models' sockets
    except OSError as problem:
        raise UserError(f"no folder for the models' sockets can be made: {problem}; set TMPDIR to one") from None
    try:
        with Reaper(run_dir) as reaper:
            running = _serve(settings, keyring, load_again, version, listener, metrics_listener, run_dir, reaper)
            status: int = uvloop.run(running)
            return status
    finally:
        shutil.rmtree(run_dir, ignore_errors=True)


async def _serve(
    settings: LitportSettings,
    keyring: Keyring,
    load_again: Callable[[], Loaded],
    version: str,
    listener: socket.socket,
    metrics_listener: socket.socket | None,
    run_dir: Path,
    reaper: Reaper,
) -> int:
    address = address_of(listener, settings.server.tls_cert_file is not None)
    metrics_address = f"{address_of(metrics_listener)}/metrics" if metrics_listener else None
    models = _models(settings, run_dir)

    def processes() -> dict[str, int]:
        return {name: model.group_id for name, model in models.items() if model.group_id is not None}

    async with contextlib.AsyncExitStack() as stack:
        progress = stack.enter_context(Progress(address))
        sampler = stack.enter_context(sampling(settings.telemetry, processes))
        supervisor = Supervisor(models, settings.server.cache_dir, reaper, progress.changed)
        stopping = _on_signals(supervisor)
        progress.watch(supervisor)
        front_door = FrontDoor(supervisor, settings, keyring, About(version, address, metrics_address), sampler)
        if metrics_listener is not None:
            await stack.enter_async_context(Page(metrics_listener, front_door.metrics, models))
            _log.info("metrics at %s", metrics_address)
        server = Server(front_door, settings)
        reload = Reload(supervisor, front_door, server, keyring, load_again)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)
        serving = asyncio.create_task(server.serve([listener]))
        supervisor.start()
        _quieten_collector()
        await _first_of(stopping, supervisor.fatal, serving)

        await _drain(front_door, supervisor, settings.server.drain_timeout_s)
        await supervisor.stop()
        server.should_exit = True
        await serving
        front_door.close()
    return 1 if supervisor.fatal.is_set() else 0


def _metrics_listener(telemetry: Telemetry) -> socket.socket | None:
    if telemetry.metrics_port is None:
        return None
    settings = "telemetry.metrics_host, telemetry.metrics_port"
    return bind(telemetry.metrics_host, telemetry.metrics_port, settings)


def _raise_descriptor_limit(max_connections: int) -> None:
    """As many files as the system allows: a request takes one here and one towards its model, and 1024 soon go."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if most != resource.RLIM_INFINITY and most < 2 * max_connections:
        _log.warning(
            "may open %d files, too few for limits.max_connections (%d); see ulimit -Hn", most, max_connections
        )


def _models(settings: LitportSettings, run_dir: Path) -> dict[str, Model]:
    siblings = sum(isinstance(chosen, VllmModel) for chosen in settings.models.values())
    models = {}
    for index, (name, chosen) in enumerate(settings.models.items()):
        # Numbered: a name may hold slashes, and the path of a socket is limited to 107 bytes.
        engine: Engine
        if isinstance(chosen, LitServeModel):
            card_file = run_dir / f"{index}.card.json"
            engine = LitServeEngine(name, chosen, card_file, settings.telemetry.log_level, len(settings.models))
        else:
            engine = VllmEngine(name, chosen, siblings)
        log_file = settings.server.cache_dir / "logs" / f"{name.replace('/', '--')}.log"
        models[name] = Model(name, chosen, engine, run_dir / f"{index}.sock", log_file)
    return models


def _on_signals(supervisor: Supervisor) -> asyncio.Event:
    """An event that the first SIGTERM or SIGINT sets; the second ends the models at once."""
    stopping = asyncio.Event()

    def received() -> None:
        if stopping.is_set():
            supervisor.kill()
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, received)
    return stopping


async def _drain(front_door: FrontDoor, supervisor: Supervisor, timeout_s: float) -> None:
    """Refuse new requests and wait for those in flight."""
    supervisor.drain()
    if front_door.in_flight:
        _log.info("waiting for %d requests in flight, at most %g s", front_door.in_flight, timeout_s)
    try:
        async with asyncio.timeout(timeout_s):
            await front_door.drain()
    except TimeoutError:
        _log.warning("%d requests were cut off after %g s (server.drain_timeout_s)", front_door.in_flight, timeout_s)


def _quieten_collector() -> None:
    """Keep what is loaded now out of garbage collection: it halved the front door's p99 at 32 connections."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


async def _first_of(*waits: "asyncio.Event | asyncio.Task[None]") -> None:
    tasks = [asyncio.create_task(wait.wait()) if isinstance(wait, asyncio.Event) else wait for wait in waits]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
