"""The supervisor: starts the instances of all models, restarts those that break, and stops them.

One task an instance walks it through pulling, starting and ready, and again when its process breaks. Instances start in
parallel as far as cores and memory allow. An instance that never became ready is not restarted, since the same settings
would fail in the same way; one that was ready is, with backoff.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any

from servers.engines import environment
from servers.models.canary import until_stuck
from servers.models.instance import Instance, State
from servers.models.model import Model
from servers.models.process import ModelProcess
from servers.models.start import StartError, locate, start
from servers.models.start_gate import StartGate
from servers.processes.group import ProcessGroup
from servers.processes.pause import pausable_timeout
from servers.processes.reaper import Reaper

_log = logging.getLogger("litport.supervisor")

_END_GRACE_S = 10.0
_FIRST_BACKOFF_S = 1.0
_MAX_BACKOFF_S = 30.0
_MAX_BACKOFF_ELSEWHERE_S = 4.0
# An instance that was ready for this long starts a new series of restarts.
_STABLE_S = 60.0


class Supervisor:
    """All models of one platform, pulled into the store under `cache_dir`.

    `on_change` is called after every step of an instance; `fatal` is set when a required model has failed for good.
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
        """Whether every required model takes requests."""
        return all(model.state is State.READY for model in self.models.values() if model.settings.required)

    @property
    def settled(self) -> bool:
        """Whether every instance is ready or has failed; one elsewhere that the platform can do without may be away."""
        return all(
            instance.state in (State.READY, State.FAILED)
            or (instance.address is not None and instance.failures > 0 and not model.settings.required)
            for model, instance in self._instances()
        )

    def start(self) -> None:
        """Begin to start all instances; returns at once."""
        self._tasks = [asyncio.create_task(self._supervise(model, instance)) for model, instance in self._instances()]

    def drain(self) -> None:
        """Let no model take new requests; those in flight go on."""
        for model, instance in self._instances():
            if instance.state is State.READY:
                self._move(model, instance, State.DRAINING)

    def kill(self) -> None:
        """Kill all processes of all models at once."""
        for _, instance in self._instances():
            if instance.group_id is not None:
                ProcessGroup(instance.group_id).kill()

    async def stop(self) -> None:
        """End the processes of all models, and wait until they are gone."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for model, instance in self._instances():
            if instance.state is not State.FAILED:
                self._move(model, instance, State.STOPPED)

    def _instances(self) -> Iterator[tuple[Model, Instance]]:
        return ((model, instance) for model in self.models.values() for instance in model.instances)

    async def _supervise(self, model: Model, instance: Instance) -> None:
        try:
            await self._keep_up(model, instance)
        except Exception:  # a fault of ours must not leave the instance `starting` for ever
            _log.exception("%s: the supervisor failed", model.name, extra={"model": model.name})
            self._give_up(model, instance, "the supervisor failed; its log says how")

    async def _keep_up(self, model: Model, instance: Instance) -> None:
        """Start the instance, and start it again when it breaks, until cancelled or given up."""
        begin_s = time.monotonic()
        while True:
            ready_at_s: float | None = None
            process = ModelProcess(model.name, self._reaper, instance.log_file)
            try:
                await self._bring_up(model, instance, process)
                ready_at_s = time.monotonic()
                instance.start_s = instance.phases_s["load"] + instance.phases_s["warm"]
                self._move(model, instance, State.READY, instance.card.note if instance.card else "")
                await _until_broken(model, instance, process)
                instance.deaths += instance.address is None
                reason = process.cause()
                self._move(model, instance, State.STARTING, f"clearing up: {reason}")
            except StartError as problem:
                reason = str(problem)
            finally:
                await _complete(_clear(instance, process))
            if ready_at_s is not None and time.monotonic() - ready_at_s > _STABLE_S:
                instance.failures = 0
            instance.failures += 1
            if outcome := _outcome(model, instance, reason, ready_at_s is not None, time.monotonic() - begin_s):
                self._give_up(model, instance, outcome)
                return
            if instance.address is None or ready_at_s is not None:
                instance.restarts += 1
            limit_s = _MAX_BACKOFF_S if instance.address is None else _MAX_BACKOFF_ELSEWHERE_S
            backoff_s = min(_FIRST_BACKOFF_S * 2 ** min(instance.failures - 1, 10), limit_s)
            verb = "restarts" if instance.address is None else "is asked again"
            self._move(model, instance, State.STARTING, f"{verb} in {backoff_s:.0f} s: {reason}")
            await asyncio.sleep(backoff_s)

    async def _bring_up(self, model: Model, instance: Instance, process: ModelProcess) -> None:
        """Pull the model if it is not in the store, start the child, and wait for its first answer; or StartError."""

        def report(state: State, detail: str) -> None:
            self._move(model, instance, state, detail)

        instance.phases_s = {}
        model_dir = await locate(model, instance, self._cache_dir, self._reaper, report)
        needs = model.engine_of(instance).needs(model_dir)
        waiting = "waiting until another model is up"
        async with self._gate.room_for(str(instance.socket), needs, on_wait=lambda: report(State.STARTING, waiting)):
            limit_s = model.settings.start_timeout_s
            try:
                async with pausable_timeout(limit_s):
                    await start(model, instance, process, model_dir, report)
            except TimeoutError:
                raise StartError(f"not ready within {limit_s:g} s (start_timeout_s); {process.cause()}") from None

    def _give_up(self, model: Model, instance: Instance, reason: str) -> None:
        self._move(model, instance, State.FAILED, reason)
        if model.settings.required and model.state is State.FAILED:  # and with it all instances
            self.fatal.set()

    def _move(self, model: Model, instance: Instance, state: State, detail: str = "") -> None:
        instance.move(state, detail)
        self._on_change(model)


def _outcome(model: Model, instance: Instance, reason: str, was_ready: bool, elapsed_s: float) -> str | None:
    """Why the instance is not started again; None where it is.

    The same settings would fail in the same way, but an instance elsewhere comes back by itself: it is given up only
    where the platform waits for it in vain at the start.
    """
    is_first = not was_ready and not instance.restarts
    if instance.address is not None:
        is_late = is_first and model.settings.required and elapsed_s > model.settings.start_timeout_s
        return f"{reason} (for {elapsed_s:.0f} s; start_timeout_s)" if is_late else None
    if is_first:
        return reason + environment.hint()
    if instance.failures > model.settings.max_restarts:
        return f"failed again after {instance.failures - 1} restarts: {reason}"
    return None


async def _until_broken(model: Model, instance: Instance, process: ModelProcess) -> None:
    """Return once the process has ended by itself, or is stuck."""
    watch = asyncio.create_task(until_stuck(model, instance, process))
    try:
        await process.broken.wait()
    finally:
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)


async def _complete(step: Coroutine[Any, Any, None]) -> None:
    """Await the step to its end even when this task is cancelled meanwhile; the cancellation is raised after it."""
    task = asyncio.ensure_future(step)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise


async def _clear(instance: Instance, process: ModelProcess) -> None:
    """End the processes and close the connection to them."""
    instance.card = None
    await process.end(_END_GRACE_S if not process.broken.is_set() else 0)
    instance.group_id = None
    if instance.connection is not None:
        await instance.connection.close()
        instance.restarts += instance.connection.restarts
        instance.connection = None
