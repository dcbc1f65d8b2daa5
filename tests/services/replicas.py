"""Replicas of models: over tiny servers, on a loop in a thread, or as processes of `litport replica`."""

import asyncio
import contextlib
import os
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from configs.settings import LitportSettings, LitServeModel
from servers.engines import registry
from servers.engines.base import Engine
from servers.engines.kind import EngineKind
from servers.gateway.address import address_of, bind
from servers.platform.progress import Progress
from servers.platform.replica import Replica
from servers.processes.reaper import Reaper
from tests.conftest import LITPORT, REPOSITORY
from tests.services.polling import wait_until_async

SECRET = "0123456789abcdef" * 2


@dataclass(frozen=True)
class OpenReplica:
    """A running replica, and its loop."""

    url: str
    replica: Replica
    loop: asyncio.AbstractEventLoop

    def drain(self) -> "Future[None]":
        """Begin to drain it."""
        return asyncio.run_coroutine_threadsafe(self.replica.drain(), self.loop)


@contextlib.contextmanager
def open_replica(folder: Path, engine: Engine, identity: str = "", port: int = 0) -> Iterator[OpenReplica]:
    """Serve the model of this engine until the block ends."""
    folder.mkdir()
    sections = {
        "models": {engine.name: {"engine": "litserve", "api": "echo"}},
        "server": {"cache_dir": str(folder)},
    }
    settings = LitportSettings.from_layers([sections])
    opened: Future[tuple[OpenReplica, asyncio.Event]] = Future()

    async def serve(reaper: Reaper, run_dir: Path, progress: Progress) -> None:
        listener = bind("127.0.0.1", port)
        replica = Replica(settings, SECRET, run_dir, reaper, progress, listener.getsockname()[1], identity)
        await replica.start(listener)
        try:
            await wait_until_async(lambda: replica.supervisor.ready)
            closing = asyncio.Event()
            opened.set_result((OpenReplica(address_of(listener), replica, asyncio.get_running_loop()), closing))
            await closing.wait()
        finally:
            await replica.stop()

    def run() -> None:
        run_dir = folder / "run"
        run_dir.mkdir()
        with Reaper(run_dir) as reaper, Progress("test") as progress:
            asyncio.run(serve(reaper, run_dir, progress))

    thread = threading.Thread(target=run)
    kind = EngineKind(LitServeModel, lambda *_: engine)
    with mock.patch.dict(registry._KINDS, {"litserve": kind}):  # until it is built
        thread.start()
        replica, closing = opened.result(timeout=30)
    try:
        yield replica
    finally:
        replica.loop.call_soon_threadsafe(closing.set)
        thread.join()


@contextlib.contextmanager
def replica_process(
    folder: Path, recipe: Path, model: str, port: int, *arguments: str
) -> "Iterator[subprocess.Popen[bytes]]":
    """`litport replica`; it is killed at the end of the block, if it still runs."""
    with (folder / f"replica-{port}.log").open("ab") as output:
        command = [*LITPORT, "replica", str(recipe), model, "--port", str(port), *arguments]
        process = subprocess.Popen(command, cwd=REPOSITORY, stdout=output, stderr=output, env=os.environ)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        finally:
            process.kill()


def write_secret(folder: Path, secret: str = SECRET) -> Path:
    """A file with the secret that only its owner may read."""
    file = folder / "secret"
    file.write_text(f"{secret}\n")
    file.chmod(0o600)
    return file
