"""The supervisor: brings every model up, keeps it up, and leaves nothing behind.

One task a model walks it through pulling, starting and ready, and again when its process breaks. Models start in
parallel as far as cores and memory allow. A model that never came up is not tried again (the same settings would fail
the same way); one that was ready is, with backoff. It refuses to look at requests: the front door does that.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TypeVar

import aiohttp

from servers.engines.base import CanaryError
from servers.models.canary import until_stuck
from servers.models.model import Model, State
from servers.models.process import ModelProcess
from servers.models.pull import PullError, pull
from servers.models.start_gate import StartGate
from servers.processes import group as process_group
from servers.processes.reaper import Reaper
from servers.store import Store

_log = logging.getLogger("litport.supervisor")

_POLL_S = 0.1
_END_GRACE_S = 10.0
_FIRST_BACKOFF_S = 1.0
_LONGEST_BACKOFF_S = 30.0
# Ready for this long: an earlier series of restarts is over.
_STABLE_S = 60.0
# Shorter than the 5 s of the children's uvicorn: we must be the first to close an idle connection.
_KEEP_ALIVE_S = 3.0

_Result = TypeVar("_Result")


class StartError(Exception):
    """A model did not come up; the message is the cause in one line."""


class Supervisor:
    """All models of one platform, pulled into the store under `cache_dir`.

    `on_change` is called after every step of a model; `fatal` is set when a required model has failed for good.
    """

    def __init__(
        self, models: Mapping[str, Model], cache_dir: Path, reaper: Reaper, on_change: Callable[[Model], None]
    ) -> None:
        self.models = models
        self._cache_dir = cache_dir
        self._reaper = reaper
        self._on_change = on_change
        self._gate = StartGate()
        self._tasks: list[asyncio.Task[None]] = []
        self.fatal = asyncio.Event()

    @property
    def ready(self) -> bool:
        """Whether every required model takes traffic."""
        return all(model.state is State.READY for model in self.models.values() if model.settings.required)

    @property
    def settled(self) -> bool:
        """Whether every model has come up or failed."""
        return all(model.state in (State.READY, State.FAILED) for model in self.models.values())

    def start(self) -> None:
        """Begin to bring all models up; returns at once."""
        self._tasks = [asyncio.create_task(self._look_after(model)) for model in self.models.values()]

    def drain(self) -> None:
        """Say that no model takes new work; what runs goes on."""
        for model in self.models.values():
            if model.state is State.READY:
                self._move(model, State.DRAINING)

    def kill(self) -> None:
        """End every model's processes at once, whatever they are doing."""
        for model in self.models.values():
            if model.group_id is not None:
                process_group.kill(model.group_id)

    async def stop(self) -> None:
        """End every model's processes, and wait until they are gone."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for model in self.models.values():
            if model.state is not State.FAILED:
                self._move(model, State.STOPPED)

    async def _look_after(self, model: Model) -> None:
        try:
            await self._keep(model)
        except Exception:  # our mistake: it is told, and the model does not stay `starting` for ever
            _log.exception("%s: the supervisor failed", model.name, extra={"model": model.name})
            self._give_up(model, "the supervisor failed; its log says how")

    async def _keep(self, model: Model) -> None:
        """Keep one model up until cancelled or given up."""
        failures = 0
        while True:
            ready_at: float | None = None
            process = ModelProcess(model.name, self._reaper, model.log_file)
            try:
                await self._bring_up(model, process)
                ready_at = time.monotonic()
                model.start_s = model.phases_s["load"] + model.phases_s["warm"]
                self._move(model, State.READY)
                await _until_broken(model, process)
                model.deaths += 1
                reason = process.cause()
                self._move(model, State.STARTING, f"clearing up: {reason}")
            except StartError as problem:
                reason = str(problem)
            finally:
                await _clear(model, process)
            if ready_at is None and not model.restarts:
                self._give_up(model, reason)
                return
            if ready_at is not None and time.monotonic() - ready_at > _STABLE_S:
                failures = 0
            failures += 1
            if failures > model.settings.max_restarts:
                self._give_up(model, f"failed again after {failures - 1} restarts: {reason}")
                return
            model.restarts += 1
            backoff_s = min(_FIRST_BACKOFF_S * 2 ** (failures - 1), _LONGEST_BACKOFF_S)
            self._move(model, State.STARTING, f"restarts in {backoff_s:.0f} s: {reason}")
            await asyncio.sleep(backoff_s)

    async def _bring_up(self, model: Model, process: ModelProcess) -> None:
        """Pull the model if it is not here yet, start its child, see the canary come back right; or StartError."""
        model.phases_s = {}
        model_dir = await self._locate(model)
        needs = model.engine.needs(model_dir)
        waiting = "waiting until another model is up"
        async with self._gate.room_for(model.name, needs, on_wait=lambda: self._move(model, State.STARTING, waiting)):
            limit_s = model.settings.start_timeout_s
            try:
                async with asyncio.timeout(limit_s):
                    await self._load_and_warm(model, process, model_dir)
            except TimeoutError:
                raise StartError(f"not ready within {limit_s:g} s (start_timeout_s); {process.cause()}") from None

    async def _locate(self, model: Model) -> Path | None:
        source = model.settings.source
        if source is None:
            return None
        folder = Store(self._cache_dir).find(source)
        if folder is None:
            self._move(model, State.PULLING, source)
            try:
                folder = await pull(
                    source,
                    self._cache_dir,
                    self._reaper,
                    model.phases_s,
                    lambda words: self._move(model, State.PULLING, words),
                )
            except PullError as problem:
                raise StartError(str(problem)) from None
        return folder

    async def _load_and_warm(self, model: Model, process: ModelProcess, model_dir: Path | None) -> None:
        begin = time.perf_counter()
        self._move(model, State.STARTING, "loading")
        model.socket.unlink(missing_ok=True)
        try:
            await process.start(model.engine.command(model_dir, model.socket))
        except OSError as problem:  # a full disk, no more processes
            raise StartError(f"its process cannot be started: {problem.strerror} ({problem.filename})") from None
        model.group_id = process.group_id
        model.session = _session(model.socket)
        await _unless_broken(process, _until_healthy(model.session))
        model.phases_s["load"] = time.perf_counter() - begin

        begin = time.perf_counter()
        self._move(model, State.STARTING, "warming")
        model.card = await _unless_broken(process, model.engine.warm(model.session))
        members = process_group.members(process.group_id)
        process.watch(member.pid for member in members if model.engine.is_vital(member, process.group_id))
        model.phases_s["warm"] = time.perf_counter() - begin

    def _give_up(self, model: Model, reason: str) -> None:
        self._move(model, State.FAILED, reason)
        if model.settings.required:
            self.fatal.set()

    def _move(self, model: Model, state: State, detail: str = "") -> None:
        model.move(state, detail)
        self._on_change(model)


async def _until_broken(model: Model, process: ModelProcess) -> None:
    """Return once the process has ended by itself, or is stuck."""
    asking = asyncio.create_task(until_stuck(model, process))
    try:
        await process.broken.wait()
    finally:
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)


async def _clear(model: Model, process: ModelProcess) -> None:
    """Leave nothing of the process, and no way to it."""
    model.card = None
    await process.end(_END_GRACE_S if not process.broken.is_set() else 0)
    model.group_id = None
    if model.session is not None:
        await model.session.close()
        model.session = None


def _session(socket: Path) -> aiohttp.ClientSession:
    """The way to a child: one connection a request, unlimited, never changed on the way."""
    return aiohttp.ClientSession(
        "http://localhost",
        connector=aiohttp.UnixConnector(str(socket), limit=0, keepalive_timeout=_KEEP_ALIVE_S),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=5),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        headers={"accept-encoding": "identity"},  # compressing costs more than the socket does
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
    """The result of the step, or StartError as soon as the process breaks or answers wrongly."""
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
