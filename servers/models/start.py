"""The start of an instance: from a source to a child that has given its first right answer."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import aiohttp

from servers.engines.base import CanaryError
from servers.models.instance import Instance, State
from servers.models.model import Model
from servers.models.process import ModelProcess
from servers.models.pull import PullError, pull
from servers.processes.group import ProcessGroup
from servers.processes.reaper import Reaper
from servers.store import Store

Report = Callable[[State, str], None]

_POLL_S = 0.1
# Shorter than the 5 s of uvicorn in the children, so that the front door is the first to close an idle connection.
_KEEP_ALIVE_S = 3.0

_Result = TypeVar("_Result")


class StartError(Exception):
    """An instance did not become ready; the message is the cause in one line."""


async def locate(model: Model, instance: Instance, cache_dir: Path, reaper: Reaper, report: Report) -> Path | None:
    """The folder of the model's files, pulled if necessary; None for a model without files. Raises StartError."""
    source = model.settings.source
    if source is None:
        return None
    folder = Store(cache_dir).find(source)
    if folder is None:
        report(State.PULLING, source)
        try:
            folder = await pull(
                source, cache_dir, reaper, instance.phases_s, lambda progress: report(State.PULLING, progress)
            )
        except PullError as problem:
            raise StartError(str(problem)) from None
    return folder


async def start(
    model: Model, instance: Instance, process: ModelProcess, model_dir: Path | None, report: Report
) -> None:
    """Start the child, connect to it, and ask it for a first answer. Raises StartError."""
    begin_s = time.perf_counter()
    report(State.STARTING, "loading")
    instance.socket.unlink(missing_ok=True)
    try:
        await process.start(model.engine.command(model_dir, instance.socket))
    except OSError as problem:  # a full disk, no more processes
        raise StartError(f"its process cannot be started: {problem.strerror} ({problem.filename})") from None
    instance.group_id = process.group_id
    instance.session = _connect(instance.socket)
    await _unless_broken(process, _until_healthy(instance.session))
    instance.phases_s["load"] = time.perf_counter() - begin_s

    begin_s = time.perf_counter()
    report(State.STARTING, "warming")
    instance.card = await _unless_broken(process, model.engine.warm(instance.session))
    members = ProcessGroup(process.group_id).members()
    process.watch(member.pid for member in members if model.engine.is_vital(member, process.group_id))
    instance.phases_s["warm"] = time.perf_counter() - begin_s


def _connect(socket: Path) -> aiohttp.ClientSession:
    """A client of the child: one connection a request, without a limit; bodies and cookies pass unchanged."""
    return aiohttp.ClientSession(
        "http://localhost",
        connector=aiohttp.UnixConnector(str(socket), limit=0, keepalive_timeout=_KEEP_ALIVE_S),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=5),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        headers={"accept-encoding": "identity"},  # compression costs more than the socket
    )


async def _until_healthy(session: aiohttp.ClientSession) -> None:
    while True:
        try:
            async with session.get("/health") as response:
                if response.status == 200:
                    return
        except aiohttp.ClientError:
            pass  # it does not listen yet
        await asyncio.sleep(_POLL_S)


async def _unless_broken(process: ModelProcess, step: Awaitable[_Result]) -> _Result:
    """The result of the step. Raises StartError as soon as the process breaks or gives a wrong answer."""
    work = asyncio.ensure_future(step)
    broken = asyncio.ensure_future(process.broken.wait())
    try:
        await asyncio.wait({work, broken}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise StartError(process.cause())
        return work.result()
    except (CanaryError, aiohttp.ClientError) as problem:
        raise StartError(f"its first answer was wrong: {problem}") from None
    finally:
        for task in (work, broken):
            task.cancel()
        await asyncio.gather(work, broken, return_exceptions=True)
