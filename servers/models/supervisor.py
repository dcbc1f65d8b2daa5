"""The supervisor: starts the instances of all models, restarts those that break, and stops them.

One task an instance walks it through pulling, starting and ready, and again when its process breaks. Instances start in
parallel as far as cores and memory allow. An instance that never became ready is not restarted, since the same settings
would fail in the same way; one that was ready is, with backoff. Which models are loaded when is the loader's to say
(`loader.py`).
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from servers.engines.base import Needs
from servers.models import restart
from servers.models.instance import Instance, State
from servers.models.model import Model
from servers.models.process import ModelProcess
from servers.models.start import NotWantedError, StartError, clear, locate, start
from servers.models.start_gate import StartGate
from servers.models.watch import watch
from servers.processes.background import complete, keep_up
from servers.processes.group import ProcessGroup
from servers.processes.pause import pausable_timeout
from servers.processes.reaper import Reaper

_log = logging.getLogger("litport.supervisor")

_START_PHASES = ("load", "warm", "check")
# An instance that was ready for this long starts a new series of restarts.
_STABLE_S = 60.0


class Supervisor:
    """All models of one platform, pulled into the store under `cache_dir`.

    `on_change` is called after every step of an instance; `fatal` is set when a required model has failed for good.
    `make_room` is awaited before the processes of a model start; it raises StartError where there is no room for them.
    `models` are those that callers reach, by name; `beside` are versions that no name leads to, such as one that ends
    while its successor is there. Both change while the platform runs.
    """

    def __init__(
        self, models: dict[str, Model], cache_dir: Path, reaper: Reaper, on_change: Callable[[Model], None]
    ) -> None:
        self.models = models
        self.beside: set[Model] = set()
        self._cache_dir = cache_dir
        self._reaper = reaper
        self._on_change = on_change
        self._gate = StartGate()
        self._tasks: dict[Instance, asyncio.Task[None]] = {}
        self._outcomes: dict[Model, asyncio.Future[None]] = {}
        self.make_room: Callable[[Model, Needs], Awaitable[None]] = _leave_alone
        self.fatal = asyncio.Event()

    @property
    def ready(self) -> bool:
        """Whether every required model takes requests."""
        return all(model.takes_requests for model in self.models.values() if model.settings.required)

    @property
    def settled(self) -> bool:
        """Whether every instance is ready or at rest; one elsewhere that the platform can do without may be away."""
        at_rest = (State.READY, State.ASLEEP, State.UNLOADED, State.FAILED)
        return all(
            instance.state in at_rest
            or (instance.address is not None and instance.failures > 0 and not model.settings.required)
            for model, instance in self._instances()
        )

    def start(self) -> None:
        """Begin to start the instances of all models that are not loaded on demand; returns at once."""
        for model in self.models.values():
            if model.residence.on_demand:
                self.rest(model)
            else:
                self.begin(model)

    def rest(self, model: Model) -> None:
        """The model has no processes until it is brought up."""
        for instance in model.instances:
            self.move(model, instance, State.UNLOADED)

    def install(self, model: Model) -> None:
        """Let the model's name lead to it from now on; the one that it led to before is beside."""
        if (previous := self.models.get(model.name)) is not None:
            self.beside.add(previous)
        self.beside.discard(model)
        self.models[model.name] = model

    def forget(self, model: Model) -> None:
        """Drop a model that has no processes any more."""
        self.beside.discard(model)
        if self.models.get(model.name) is model:
            del self.models[model.name]

    @property
    def all_models(self) -> list[Model]:
        """The models that names lead to, and those beside them."""
        return [*self.models.values(), *self.beside]

    async def bring_up(self, model: Model) -> None:
        """Start the instances of a model that do not run, and return when one is ready. Raises StartError.

        It is for one caller at a time. Cancelling it does not stop the start. A model elsewhere may be asked on after
        the caller was told that it is away.
        """
        if model.state is State.READY:
            return
        self._outcomes[model] = outcome = asyncio.get_running_loop().create_future()
        self.begin(model)
        try:
            await outcome
        finally:
            del self._outcomes[model]

    def begin(self, model: Model) -> None:
        """Begin to start the instances of a model that do not run; returns at once."""
        for instance in model.instances:
            if instance not in self._tasks:
                self._tasks[instance] = asyncio.create_task(self._supervise(model, instance))

    async def end(self, model: Model, state: State, instances: Sequence[Instance] | None = None) -> None:
        """End the processes of a model, or of these instances, and wait until they are gone.

        The instances are in this state then.
        """
        instances = model.instances if instances is None else instances
        tasks = [task for instance in instances if (task := self._tasks.get(instance))]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for instance in instances:
            self._tasks.pop(instance, None)  # a task that was cancelled before its first step has not done it
        for instance in instances:
            self.move(model, instance, state)

    def drain(self, only: Model | None = None) -> None:
        """Let no model, or not this one, take new requests; those in flight go on."""
        for model, instance in self._instances():
            if instance.state is State.READY and only in (None, model):
                self.move(model, instance, State.DRAINING)

    def kill(self) -> None:
        """Kill all processes of all models at once."""
        for _, instance in self._instances():
            if instance.group_id is not None:
                ProcessGroup(instance.group_id).kill()

    async def stop(self) -> None:
        """End the processes of all models, and wait until they are gone."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for model, instance in self._instances():
            if instance.state is not State.FAILED:
                self.move(model, instance, State.STOPPED)

    def _instances(self) -> Iterator[tuple[Model, Instance]]:
        return ((model, instance) for model in self.all_models for instance in model.instances)

    async def _supervise(self, model: Model, instance: Instance) -> None:
        try:
            await self._keep_up(model, instance)
        except Exception:  # a fault of ours must not leave the instance `starting` for ever
            _log.exception("%s: the supervisor failed", model.name, extra={"model": model.name})
            self._give_up(model, instance, StartError("the supervisor failed; its log says how"))
        finally:
            self._tasks.pop(instance, None)

    async def _keep_up(self, model: Model, instance: Instance) -> None:
        """Start the instance, and start it again when it breaks, until cancelled or given up."""
        begin_s = time.monotonic()
        instance.failures = 0
        has_been_ready = False
        while True:
            ready_at_s: float | None = None
            was_asleep = False
            process = ModelProcess(model.name, self._reaper, instance.log_file)
            try:
                await self._bring_up(model, instance, process)
                ready_at_s = time.monotonic()
                has_been_ready = True
                self._welcome(model, instance)
                drain = partial(self.move, model, instance, State.DRAINING, "its replica is being stopped")
                await _until_broken(process, partial(watch, model, instance, process, drain))
                instance.deaths += instance.address is None
                problem = StartError(process.cause())
                was_asleep = instance.state is State.ASLEEP
                self.move(model, instance, State.STARTING, f"clearing up: {problem}")
            except StartError as error:
                problem = error
            finally:
                await complete(clear(instance, process))
            if was_asleep:
                self._leave(model, instance, problem)
                return
            if ready_at_s is not None and time.monotonic() - ready_at_s > _STABLE_S:
                instance.failures = 0
            instance.failures += 1
            if outcome := restart.outcome(model, instance, problem, has_been_ready, time.monotonic() - begin_s):
                self._give_up(model, instance, outcome)
                return
            if absence := restart.absence(model, problem, time.monotonic() - begin_s):
                self._tell(model, absence)
            if instance.address is None or ready_at_s is not None:
                instance.restarts += 1
            backoff_s = restart.backoff_s(instance)
            verb = "restarts" if instance.address is None else "is asked again"
            self.move(model, instance, State.STARTING, f"{verb} in {backoff_s:.0f} s: {problem}")
            await asyncio.sleep(backoff_s)

    async def _bring_up(self, model: Model, instance: Instance, process: ModelProcess) -> None:
        """Pull the model if it is not in the store, start the child, and wait for its first answer; or StartError."""

        def report(state: State, detail: str) -> None:
            self.move(model, instance, state, detail)

        instance.phases_s = {}
        model_dir = await locate(model, instance, self._cache_dir, self._reaper, report)
        needs = model.engine_of(instance).needs(model_dir)
        await self.make_room(model, needs)
        waiting = "waiting until another model is up"
        async with self._gate.room_for(str(instance.socket), needs, on_wait=lambda: report(State.STARTING, waiting)):
            limit_s = model.settings.start_timeout_s
            try:
                async with pausable_timeout(limit_s):
                    await start(model, instance, process, model_dir, report)
            except TimeoutError:
                raise StartError(f"not ready within {limit_s:g} s (start_timeout_s); {process.cause()}") from None

    def _welcome(self, model: Model, instance: Instance) -> None:
        """The instance is ready."""
        instance.start_s = sum(duration_s for phase, duration_s in instance.phases_s.items() if phase in _START_PHASES)
        model.residence.loaded_at_s = time.monotonic()
        self.move(model, instance, State.READY, instance.card.note if instance.card else "")
        self._tell(model, None)
        if model.residence.is_open:
            model.admission.admit()
        if instance.address is not None:
            self.begin(model)  # one that was given up while all were away may be back as well

    def _give_up(self, model: Model, instance: Instance, problem: StartError) -> None:
        """The instance has failed for good, or, if it is loaded on demand, until the next request."""
        is_last = not any(other in self._tasks for other in model.instances if other is not instance)
        if model.residence.on_demand and is_last:
            if not isinstance(problem, NotWantedError):
                model.residence.fail(str(problem))
            for member in model.instances:
                self.move(model, member, State.UNLOADED, model.residence.failure)
        else:
            others = (other for other in model.instances if other is not instance)
            is_alone = all(other.state is State.FAILED for other in others)
            is_needed = model.settings.required and not model.residence.on_demand and not model.has_way_back
            if is_needed and is_alone:
                self.fatal.set()  # first, so that whoever hears of the step knows that it is the end
            self.move(model, instance, State.FAILED, str(problem))
        if is_last:
            self._tell(model, problem)

    def _leave(self, model: Model, instance: Instance, problem: StartError) -> None:
        """The instance broke while it slept: the next request starts it."""
        self.move(model, instance, State.UNLOADED, str(problem))
        if not any(other.state is State.ASLEEP for other in model.instances):
            model.residence.leave()
        self._tell(model, NotWantedError(f"it broke while it slept: {problem}"))

    def _tell(self, model: Model, problem: StartError | None) -> None:
        """Tell the caller who waits for the model, if there is one, that it is ready or why not."""
        outcome = self._outcomes.get(model)
        if outcome is None or outcome.done():
            return
        if problem is None:
            outcome.set_result(None)
        else:
            outcome.set_exception(problem)

    def move(self, model: Model, instance: Instance, state: State, detail: str = "") -> None:
        """Let an instance enter a state, or a new step within it, and tell of it."""
        instance.move(state, detail)
        self._on_change(model)


async def _leave_alone(_: Model, __: Needs) -> None:
    """Make no room."""


async def _until_broken(process: ModelProcess, ask: Callable[[], Awaitable[None]]) -> None:
    """Return once the process has ended by itself, or is given up; `ask` asks it again and again."""
    task = asyncio.create_task(keep_up(f"{process.name}: its canary", ask))
    try:
        await process.broken.wait()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
