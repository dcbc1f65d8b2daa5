"""`litport serve`: the process around a platform, from the listening socket to a clean end.

The public port is bound before any model starts, so that a port in use is reported at once. On SIGTERM or Ctrl-C new
requests are rejected, those in flight finish, then the models end; a second signal ends the models at once.
"""

import asyncio
import contextlib
import gc
import logging
import resource
import shutil
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import uvloop

from configs.errors import UserError
from configs.loading import LoadedSettings
from configs.settings import LitportSettings
from servers.gateway.address import address_of, bind
from servers.gateway.status import About
from servers.models.instance import State
from servers.models.supervisor import Supervisor
from servers.platform.declaration import Declaration, Read
from servers.platform.files import watch
from servers.platform.platform import Platform
from servers.platform.progress import Progress
from servers.platform.targets import check
from servers.processes.background import keep_up
from servers.processes.reaper import Reaper
from servers.processes.run_dir import make_run_dir

_log = logging.getLogger("litport.platform")


def serve(
    loaded: LoadedSettings,
    read: Read,
    version: str,
    watched: Sequence[Path] | None = None,
    follow: Callable[[Platform], Awaitable[None]] | None = None,
) -> int:
    """Serve until a signal; the exit status is 0, or 1 when a required model failed for good.

    `read` reads settings while it runs: anew at SIGHUP, and whenever one of the `watched` files, or one that the
    settings name, has changed; None watches nothing. `follow` runs beside the platform, and begins again when it
    fails. Raises UserError when the address is not available, SettingsError when the settings cannot be served.
    """
    settings = loaded.settings
    listener, metrics_listener = _listeners(settings)
    address = address_of(listener, settings.server.tls_cert_file is not None)
    about = About(version, address, f"{address_of(metrics_listener)}/metrics" if metrics_listener else None)
    keyring = check(loaded)
    for note in loaded.notes:
        _log.warning("%s", note)
    raise_descriptor_limit(settings.limits.max_connections)
    run_dir = make_run_dir()
    try:
        with Reaper(run_dir) as reaper, Progress(address) as progress:

            async def run() -> int:
                platform = Platform(settings, keyring, about, run_dir, reaper, progress.changed, read)
                declaration = platform.declaration
                start = platform.start(listener, metrics_listener)
                watching = _beside("the watch for changed files", _watch(declaration, watched))
                following = _beside("the follower of the cluster", follow and partial(follow, platform))
                async with watching, following:
                    return await run_service(platform, start, progress, lambda: declaration.reload("SIGHUP"))

            status: int = uvloop.run(run())
            return status
    finally:
        shutil.rmtree(run_dir, ignore_errors=True)


class Service(Protocol):
    """What `run_service` runs: a platform, or a replica."""

    supervisor: Supervisor

    async def wait(self) -> None:
        """Return when a required model has failed for good, or the server has ended."""
        ...

    async def drain(self) -> None:
        """Reject new requests and wait for those in flight, as long as the settings say."""
        ...

    async def stop(self) -> None:
        """End the models, then the server."""
        ...


async def run_service(
    service: Service, start: Awaitable[None], progress: Progress, reload: Callable[[], object]
) -> int:
    """Start it, and drain it at a signal; `reload` is for SIGHUP. Returns the exit status, as `serve` does."""
    stopping = _on_signals(service)
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)
    progress.watch(service.supervisor)
    try:
        await start
        _quieten_collector()
        await _first_of(stopping.wait(), service.wait())
        await service.drain()
    finally:
        await service.stop()
    for model in service.supervisor.models.values():
        if model.state is State.FAILED and model.settings.required:
            advice = f"models.{model.name}.required=false keeps the rest"
            _log.error("ending: %s is required and failed: %s; %s", model.name, model.choose().detail, advice)
    return 1 if service.supervisor.fatal.is_set() else 0


def _watch(declaration: Declaration, watched: Sequence[Path] | None) -> Callable[[], Awaitable[None]] | None:
    """Applies the recipes when a file of theirs has changed; None where nothing is watched."""
    if watched is None:
        return None
    return partial(watch, lambda: [*watched, *declaration.files], lambda: declaration.reload("--watch"))


@contextlib.asynccontextmanager
async def _beside(name: str, work: Callable[[], Awaitable[None]] | None) -> AsyncIterator[None]:
    """Keep the work up until the block ends."""
    if work is None:
        yield
        return
    task = asyncio.create_task(keep_up(name, work))
    try:
        yield
    finally:
        task.cancel()


def _listeners(settings: LitportSettings) -> tuple[socket.socket, socket.socket | None]:
    """The sockets of the front door and of the metrics, if there are any. Raises UserError for both at once."""
    server, telemetry = settings.server, settings.telemetry
    listener = metrics_listener = None
    problems = []
    try:
        listener = bind(server.host, server.port, reserved_port=telemetry.metrics_port)
    except UserError as problem:
        problems.append(str(problem))
    try:
        if telemetry.metrics_port is not None:
            names = "telemetry.metrics_host, telemetry.metrics_port"
            metrics_listener = bind(telemetry.metrics_host, telemetry.metrics_port, names)
    except UserError as problem:
        problems.append(str(problem))
    if listener is None or problems:
        raise UserError("\n".join(problems))
    return listener, metrics_listener


def raise_descriptor_limit(max_connections: int) -> None:
    """Open as many files as the system allows: a request takes two descriptors, and the usual limit is 1024."""
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))
    if hard_limit != resource.RLIM_INFINITY and hard_limit < 2 * max_connections:
        message = "may open %d files, too few for limits.max_connections (%d); see ulimit -Hn"
        _log.warning(message, hard_limit, max_connections)


def _on_signals(service: Service) -> asyncio.Event:
    """An event that the first SIGTERM or SIGINT sets; the second one kills the models."""
    stopping = asyncio.Event()

    def handle() -> None:
        if stopping.is_set():
            service.supervisor.kill()
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, handle)
    return stopping


def _quieten_collector() -> None:
    """Keep the objects of the start out of garbage collection: that halved the front door's p99 at 32 connections."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


async def _first_of(*waits: Coroutine[Any, Any, Any]) -> None:
    tasks = [asyncio.create_task(wait) for wait in waits]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
