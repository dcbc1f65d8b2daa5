"""The loader: loads models when they are asked for, and unloads those that rest or must make room.

One whose engine can sleep does so first, level by level, and is woken when it is asked for.

A request to a model that is not loaded waits in the model's row, under the bounds of any other request, while the model
is loaded once for all who wait. A failed load is told to all of them, and the next request tries again after a
backoff. Requests that run are never cut off by an unload: it waits for them, and new ones wait for the next load.
"""

import asyncio
import contextlib
import logging
import time
from functools import partial

from servers.errors import MAX_RETRY_AFTER_S, ApiError, UnservedError
from servers.models import sleep
from servers.models.instance import State
from servers.models.model import Model
from servers.models.residence import UnloadReason
from servers.models.room import Room, measure
from servers.models.start import NotWantedError, StartError
from servers.models.supervisor import Supervisor
from servers.processes.background import keep_up

_log = logging.getLogger("litport.loader")

_POLL_S = 0.05
_LONGEST_CAUSE = 300


class Loader:
    """Loads and unloads the models of one supervisor; `memory_budget_bytes` is that of the settings."""

    def __init__(self, supervisor: Supervisor, memory_budget_bytes: int | None) -> None:
        self._supervisor = supervisor
        self._loads: dict[Model, asyncio.Task[StartError | None]] = {}
        self._unloads: dict[Model, asyncio.Task[None]] = {}
        self._insisted: set[Model] = set()
        self._making_way: set[Model] = set()
        self._changed = asyncio.Event()
        self._watch: asyncio.Task[None] | None = None
        self._is_draining = self._is_stopping = False
        self.room = Room(supervisor, memory_budget_bytes, self._unload_for_room, self._insisted)
        supervisor.make_room = self.room.make

    def start(self) -> None:
        """Watch for idle models from now on."""
        self._watch = asyncio.create_task(keep_up("the watch for idle models", self._unload_idle))

    def review(self) -> None:
        """Look anew which models are idle for too long: settings may have changed."""
        self._changed.set()

    def demand(self, model: Model) -> None:
        """See that a model that is not open is being loaded; called for each request to it, before it waits.

        Raises UnservedError 503 where requests do not wait for a load, or the last one failed a moment ago.
        """
        if self._is_draining:
            raise _shutting_down()
        if model.is_leaving:
            raise _not_ready(f"model '{model.name}' is being removed", 1)
        if model not in self._loads and model.residence.retry_at_s > time.monotonic():
            raise _load_failed(model, model.residence.failure)
        if not model.settings.on_demand_wait:
            self._insisted.add(model)
        self._begin(model)
        if not model.settings.on_demand_wait:
            message = f"model '{model.name}' is being loaded"
            raise _not_ready(message, model.choose().ready_in_s)

    async def load(self, model: Model) -> None:
        """Load a model, whether or not a request waits for it, and return when it is ready. Raises StartError."""
        if model.state is State.READY and model.residence.is_open:
            return
        if self._is_draining:
            raise StartError("the platform is shutting down")
        while True:
            self._insisted.add(model)
            load = self._begin(model)
            try:
                problem = await asyncio.shield(load)
            except asyncio.CancelledError:
                if not load.cancelled():
                    raise
                if model in self._making_way:  # it slept, and now begins again
                    await asyncio.shield(self._unloads[model])
                    continue
                problem = StartError("its load was ended, by an unload or because the platform ends")
            break
        if problem is not None:
            raise problem

    async def unload(self, model: Model, reason: UnloadReason, *, may_sleep: bool = False) -> None:
        """Unload a model once the requests that it works on have ended; a load that goes on is given up.

        One that `may_sleep` keeps its processes, where they can sleep, or sleep deeper than they do. Cancelling it does
        not stop the unload. Requests that come meanwhile wait for the next load.
        """
        while model in self._unloads:
            await asyncio.shield(self._unloads[model])
            if may_sleep or model.state is not State.ASLEEP:
                return
        self._unloads[model] = asyncio.create_task(self._unload(model, reason, may_sleep))
        await asyncio.shield(self._unloads[model])

    async def rouse(self, model: Model) -> None:
        """End a model that sleeps; where it is asked for already, wait until it is up instead. Raises StartError."""
        if model.state is State.ASLEEP and model in self._loads:
            await self.load(model)
        elif model.state is State.ASLEEP:
            await self.unload(model, "command")

    async def retire(self, model: Model) -> None:
        """End a model for good, once the requests that it has are answered; it takes no new ones from now on.

        Those that wait for its load are answered after it, unless it is its first, since they have not been let in yet.
        """
        model.is_leaving = True
        self._supervisor.drain(model)
        while not model.is_idle and not self._is_stopping:  # noqa: ASYNC110 # see Room
            await asyncio.sleep(_POLL_S)
        tasks = [task for task in (self._unloads.get(model), self._loads.get(model)) if task is not None]
        if load := self._loads.get(model):
            load.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._supervisor.end(model, State.STOPPED)
        model.residence.leave()

    def drain(self) -> None:
        """Turn away the requests that wait for a load; no model is loaded or unloaded by itself from now on."""
        self._is_draining = True
        if self._watch is not None:
            self._watch.cancel()
        for model in self._supervisor.all_models:
            if not model.residence.is_open:
                model.admission.refuse(_shutting_down)

    async def stop(self) -> None:
        """End all loads; their processes are the supervisor's to end."""
        self._is_draining = self._is_stopping = True
        tasks = [*self._loads.values(), *filter(None, [self._watch])]
        tasks += self._unloads.values()  # one may fall asleep, for as long as it takes
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, model: Model) -> "asyncio.Task[StartError | None]":
        load = self._loads.get(model)
        if load is None or load.done():  # one that was cancelled before it began
            load = self._loads[model] = asyncio.create_task(self._load(model))
        return load

    async def _load(self, model: Model) -> StartError | None:
        """Load the model, and let those that wait run; on a failure tell them, and return it."""
        residence = model.residence
        try:
            async with residence.lock:
                while True:
                    try:
                        await self._bring_up(model)
                        break
                    except NotWantedError as problem:
                        if not model.admission.waiting and model not in self._insisted:
                            return problem
                    except StartError as problem:
                        residence.loads["failed"] += 1
                        model.admission.refuse(partial(_load_failed, model, str(problem)))
                        return problem
                residence.loads["ok"] += 1
                residence.settle()
                model.admission.admit()
                await measure(model)
                return None
        finally:
            del self._loads[model]
            self._insisted.discard(model)
            self._changed.set()

    async def _bring_up(self, model: Model) -> None:
        """Wake the model, or start it. Raises StartError, NotWantedError."""
        if model.state is State.ASLEEP:
            try:
                await self.room.regain(model)
                await sleep.wake(model, self._supervisor.move)
                self._supervisor.begin(model)  # an instance that broke while it slept
                return
            except NotWantedError:
                raise
            except StartError as problem:
                fields = {"model": model.name}
                _log.warning("%s: does not wake, and is started anew: %s", model.name, problem, extra=fields)
                await self._end(model)
        await self._supervisor.bring_up(model)

    async def _unload(self, model: Model, reason: UnloadReason, may_sleep: bool) -> None:
        residence = model.residence
        load = self._loads.get(model)
        if load and model.state is State.ASLEEP and reason != "command":
            if residence.is_waking or reason == "idle":
                del self._unloads[model]  # it has just been asked for
                return
            self._making_way.add(model)  # and waits for its GPUs; those who ask for it wait for a start instead
        residence.close()
        if load:
            load.cancel()
            await asyncio.gather(load, return_exceptions=True)
            if model not in self._making_way:
                model.admission.refuse(lambda: _not_ready(f"the load of model '{model.name}' was ended", 1))
        try:
            async with residence.lock:
                await self._take_out(model, reason, may_sleep)
        finally:
            del self._unloads[model]
            self._making_way.discard(model)
        if model.admission.waiting and not self._is_draining:
            self._begin(model)

    async def _take_out(self, model: Model, reason: UnloadReason, may_sleep: bool) -> None:
        residence = model.residence
        if model.state is State.READY:
            self._supervisor.drain(model)
            residence.unloads[reason] += 1
            _log.info("%s: is unloaded (%s)", model.name, reason, extra={"model": model.name})
        while model.admission.running and not self._is_stopping:  # noqa: ASYNC110 # see Room: they tell nobody
            await asyncio.sleep(_POLL_S)
        await measure(model)
        residence.card = model.card
        may_stay = may_sleep and not self._is_stopping
        if not may_stay or not await sleep.deepen(model, self.room, self._supervisor.move):
            if model.state is State.ASLEEP:
                _log.info("%s: is ended in its sleep (%s)", model.name, reason, extra={"model": model.name})
            await self._end(model)

    async def _unload_for_room(self, model: Model, may_sleep: bool) -> None:
        await self.unload(model, "room", may_sleep=may_sleep)

    async def _end(self, model: Model) -> None:
        await self._supervisor.end(model, State.UNLOADED)
        model.residence.leave()

    async def _unload_idle(self) -> None:
        """Unload each model that has been idle for its idle_unload_s."""
        while True:
            self._changed.clear()
            wait_s = None
            for model in list(self._supervisor.models.values()):
                if (due_in_s := _due_in_s(model)) is None:
                    continue
                if due_in_s <= 0:
                    await self.unload(model, "idle", may_sleep=True)
                    self._changed.set()  # it may sleep now, and not for ever
                else:
                    wait_s = min(due_in_s, wait_s or due_in_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._changed.wait()


def _due_in_s(model: Model) -> float | None:
    """When to look whether the model is to be unloaded as idle, in seconds; 0 or less to do it now, None never.

    One that sleeps is to sleep deeper then, or to be ended.
    """
    settings, idle_s = model.settings, model.settings.idle_unload_s
    if idle_s is None or model.state is State.UNLOADED:
        return None  # a load wakes the watch
    if model.state is State.ASLEEP and not model.residence.lock.locked():
        return model.residence.slept_at_s + idle_s - time.monotonic()
    if model.state is not State.READY or not model.residence.is_open or not model.is_idle:
        return idle_s
    due_s = max(model.idle_since_s + idle_s, model.residence.loaded_at_s + settings.min_resident_s)
    return due_s - time.monotonic()


def _load_failed(model: Model, cause: str) -> UnservedError:
    wait_s = max(1.0, model.residence.retry_at_s - time.monotonic())
    return _not_ready(f"model '{model.name}' could not be loaded: {cause[:_LONGEST_CAUSE]}", wait_s)


def _not_ready(message: str, retry_s: float) -> UnservedError:
    headers = {"retry-after": str(min(MAX_RETRY_AFTER_S, max(1, round(retry_s))))}
    return UnservedError(503, message, code="model_not_ready", param="model", headers=headers)


def _shutting_down() -> ApiError:
    return ApiError(503, "the server is shutting down", code="shutting_down", headers={"connection": "close"})
