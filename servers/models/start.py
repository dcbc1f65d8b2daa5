"""The start of an instance: from a source to a child that has given its first right answer; and its end."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from configs.errors import UserError
from servers.engines.base import WRONG_ANSWER, CanaryError, describe_wrong, get
from servers.engines.connection import CONNECTION_LOST, Connection, NotTakenError
from servers.models.inspection import CheckError, inspect
from servers.models.instance import Instance, State
from servers.models.model import Model
from servers.models.process import ModelProcess
from servers.models.pull import PullError, pull
from servers.processes.group import ProcessGroup
from servers.processes.reaper import Reaper
from servers.store import Store, sources

Report = Callable[[State, str], None]

_POLL_S = 0.1
_END_GRACE_S = 10.0
# Nothing is in flight in one that loads, and vLLM does not hear SIGTERM while it does.
_LOADING_GRACE_S = 2.0

_Result = TypeVar("_Result")


class StartError(Exception):
    """An instance did not become ready; the message is the cause in one line."""


class NoRoomError(StartError):
    """An instance was not started, since the memory does not hold it beside the others."""


class WrongAnswerError(StartError):
    """An instance did not pass a check of its model."""


class NotWantedError(StartError):
    """An instance was not started, since nobody waits for it any more."""


async def locate(model: Model, instance: Instance, cache_dir: Path, reaper: Reaper, report: Report) -> Path | None:
    """The folder of the model's files, pulled if necessary; None for a model without files here. Raises StartError.

    An engine that takes GGUF as it is gets the file.
    """
    source = model.settings.source
    if source is None or instance.address is not None:
        return None
    if not model.settings.converts_gguf:
        return sources.file_of(source)
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
    """Start the child, if there is one, connect to it, and ask it for a first answer. Raises StartError."""
    begin_s = time.perf_counter()
    if instance.address is None:
        report(State.STARTING, "loading")
        process.on_step = lambda step: report(State.STARTING, step)
        await _start_child(model, instance, process, model_dir)
    instance.connection = model.engine_of(instance).connect(instance.socket)
    if instance.address is None:
        await _unless_broken(process, _until_healthy(instance.connection))
    process.on_step = lambda _: None
    instance.phases_s["load"] = time.perf_counter() - begin_s

    begin_s = time.perf_counter()
    if instance.address is None:
        report(State.STARTING, "warming")
    elif not instance.failures:  # later the last failure is the better word
        report(State.STARTING, f"asking its server: {instance.address}")
    instance.card = await _unless_broken(process, model.engine_of(instance).warm(instance.connection))
    if instance.address is None:
        members = ProcessGroup(process.group_id).members()
        process.watch(member.pid for member in members if model.engine_of(instance).is_vital(member, process.group_id))
    instance.phases_s["warm"] = time.perf_counter() - begin_s
    if checks := model.settings.checks:
        begin_s = time.perf_counter()
        report(State.STARTING, "checking")
        await _unless_broken(process, inspect(model.name, checks, instance))
        instance.phases_s["check"] = time.perf_counter() - begin_s


async def clear(instance: Instance, process: ModelProcess) -> None:
    """End the processes and close the connection to them."""
    instance.card = None
    grace_s = _END_GRACE_S if process.watched else _LOADING_GRACE_S
    await process.end(0 if process.broken.is_set() else grace_s)
    instance.group_id = None
    if instance.connection is not None:
        await instance.connection.close()
        instance.restarts += instance.connection.restarts
        instance.connection = None


async def _start_child(model: Model, instance: Instance, process: ModelProcess, model_dir: Path | None) -> None:
    instance.socket.unlink(missing_ok=True)
    try:
        command = model.engine_of(instance).command(model_dir, instance.socket)
        assert command is not None, "an engine without a command has an address"
        await process.start(command)
    except UserError as problem:
        raise StartError(str(problem)) from None
    except OSError as problem:  # a full disk, no more processes
        raise StartError(f"its process cannot be started: {problem.strerror} ({problem.filename})") from None
    instance.group_id = process.group_id


async def _until_healthy(connection: Connection) -> None:
    while True:
        with contextlib.suppress(CanaryError, *CONNECTION_LOST):  # it does not listen yet, or is not yet healthy
            await get(connection, "/health")
            return
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
    except NotTakenError as problem:
        raise StartError(str(problem)) from None
    except CheckError as problem:
        raise WrongAnswerError(str(problem)) from None
    except CONNECTION_LOST as problem:
        raise StartError(f"its first answer was wrong: {problem}") from None
    except WRONG_ANSWER as problem:
        raise StartError(f"its first answer was wrong: {describe_wrong(problem)}") from None
    finally:
        for task in (work, broken):
            task.cancel()
        await asyncio.gather(work, broken, return_exceptions=True)
