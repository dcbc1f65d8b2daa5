"""The real platform over tiny servers, on a loop in a thread, for tests that are clients."""

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import httpx

from configs.settings import LitportSettings, LitServeModel
from servers.engines import registry
from servers.engines.base import Engine
from servers.engines.kind import EngineKind
from servers.gateway.address import address_of, bind
from servers.gateway.front_door import FrontDoor
from servers.gateway.keys import Keyring
from servers.gateway.status import About
from servers.models.supervisor import Supervisor
from servers.platform.declaration import Read
from servers.platform.platform import Platform
from servers.processes.reaper import Reaper
from tests.services.polling import wait_until_async


@dataclass(frozen=True)
class Door:
    """A running platform, its loop, and a client of its address."""

    platform: Platform
    loop: asyncio.AbstractEventLoop
    client: httpx.Client

    @property
    def app(self) -> FrontDoor:
        """The application behind the port."""
        return self.platform.front_door

    @property
    def supervisor(self) -> Supervisor:
        """The supervisor of its models."""
        return self.platform.supervisor

    @property
    def port(self) -> int:
        """The port it listens on."""
        assert self.client.base_url.port is not None
        return self.client.base_url.port


@contextlib.contextmanager
def open_door(
    folder: Path,
    *engines: Engine,
    model: Mapping[str, Any] | None = None,
    port: int = 0,
    read: Read | None = None,
    **settings: Any,
) -> Iterator[Door]:
    """Serve these models until the block ends; `model` are settings of each, `settings` sections of the tree.

    `port` 0 is any free one, and `read` reads the recipes that are applied.
    """
    engine_by_name = {engine.name: engine for engine in engines}
    kind = EngineKind(LitServeModel, lambda name, *_: engine_by_name[name])
    sections = {
        "models": {name: {"engine": "litserve", "api": "echo", **(model or {})} for name in engine_by_name},
        "server": {"cache_dir": str(folder)},
        "telemetry": {"sample_interval_s": None},
    }
    tree = LitportSettings.from_layers([settings, sections])
    opened: Future[tuple[Door, asyncio.Event]] = Future()

    async def serve(reaper: Reaper, run_dir: Path) -> None:
        listener = bind("127.0.0.1", port)
        url = address_of(listener, tree.server.tls_cert_file is not None)
        platform = Platform(tree, Keyring(tree.auth), About("test", url), run_dir, reaper, read=read)
        await platform.start(listener)
        try:
            await wait_until_async(lambda: platform.supervisor.ready)
            closing = asyncio.Event()
            with httpx.Client(base_url=url, timeout=20, verify=_trusted(tree)) as client:
                opened.set_result((Door(platform, asyncio.get_running_loop(), client), closing))
                await closing.wait()
        finally:
            await platform.stop()

    def run() -> None:
        run_dir = folder / "run"
        run_dir.mkdir()
        with Reaper(run_dir) as reaper:
            try:
                asyncio.run(serve(reaper, run_dir))
            except BaseException as problem:
                if opened.done():
                    raise
                opened.set_exception(problem)

    thread = threading.Thread(target=run)
    with mock.patch.dict(registry._KINDS, {"litserve": kind}):  # until the platform is built
        thread.start()
        door, closing = opened.result(timeout=30)
    try:
        yield door
    finally:
        door.loop.call_soon_threadsafe(closing.set)
        thread.join()


def _trusted(settings: LitportSettings) -> ssl.SSLContext | bool:
    return ssl.create_default_context(cafile=settings.server.tls_cert_file) if settings.server.tls_cert_file else True
