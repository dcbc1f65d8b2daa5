"""The real supervisor and the real front door over tiny servers, on a loop in a thread, for tests that are clients."""

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from configs.settings import LitportSettings
from servers.engines.base import Engine
from servers.gateway.address import address_of, bind
from servers.gateway.front_door import FrontDoor
from servers.gateway.keys import Keyring
from servers.gateway.listing import About
from servers.gateway.server import Server
from servers.models.supervisor import Supervisor
from tests.services.supervision import supervising, until


@dataclass(frozen=True)
class Door:
    """The application, its supervisor and its loop, and a client of its address."""

    app: FrontDoor
    supervisor: Supervisor
    loop: asyncio.AbstractEventLoop
    client: httpx.Client

    @property
    def port(self) -> int:
        """The port it listens on."""
        assert self.client.base_url.port is not None
        return self.client.base_url.port


@contextlib.contextmanager
def open_door(
    folder: Path, *engines: Engine, model: Mapping[str, Any] | None = None, port: int = 0, **settings: Any
) -> Iterator[Door]:
    """Serve these models until the block ends; `model` are settings of each, `settings` sections of the tree.

    `port` 0 is any free one.
    """
    opened: Future[tuple[Door, asyncio.Event]] = Future()

    async def serve() -> None:
        async with supervising(folder, *engines, **(model or {})) as supervisor:
            await until(lambda: supervisor.ready)
            listener = bind("127.0.0.1", port)
            tree = LitportSettings.from_layers([settings])
            url = address_of(listener, tree.server.tls_cert_file is not None)
            app = FrontDoor(supervisor, tree, Keyring(tree.auth), About("test", url))
            server = Server(app, tree)
            serving = asyncio.create_task(server.serve([listener]))
            closing = asyncio.Event()
            with httpx.Client(base_url=url, timeout=20, verify=_trusted(tree)) as client:
                opened.set_result((Door(app, supervisor, asyncio.get_running_loop(), client), closing))
                await closing.wait()
            server.should_exit = True
            await serving
            app.close()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    door, closing = opened.result(timeout=30)
    try:
        yield door
    finally:
        door.loop.call_soon_threadsafe(closing.set)
        thread.join()


def _trusted(settings: LitportSettings) -> ssl.SSLContext | bool:
    return ssl.create_default_context(cafile=settings.server.tls_cert_file) if settings.server.tls_cert_file else True
