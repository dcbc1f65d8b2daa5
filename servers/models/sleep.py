"""The sleep of a model: its processes give memory back and stay, and serve again sooner than new ones.

Only models of some engines can sleep (`Sleeper`), and only whole ones do: all instances together.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from servers.engines.base import WRONG_ANSWER, CanaryError, Card, Sleeper, describe_wrong
from servers.engines.connection import CONNECTION_LOST, Connection
from servers.models.inspection import CheckError, inspect
from servers.models.instance import Instance, State
from servers.models.model import Model
from servers.models.room import Room, measure, shares_asleep, shares_of
from servers.models.start import StartError
from servers.processes.pause import pausable_timeout

_log = logging.getLogger("litport.loader")

Move = Callable[[Model, Instance, State, str], None]


async def deepen(model: Model, room: Room, move: Move) -> bool:
    """Let an idle model sleep, or deeper than it does, as far as the `room` has place for it; whether it does."""
    residence, shares = model.residence, shares_of(model, model.instances)
    # Between two levels its weights are on its GPUs again. At the first one they come into the host's memory.
    more = {gpu: share - residence.gpu_shares.get(gpu, 0.0) for gpu, share in shares.items()}
    levels = (level for level in next_levels(model) if room.holds(residence.needs_bytes if level == 1 else None, more))
    if (level := next(levels, None)) is None:
        return False
    residence.gpu_shares = shares
    try:
        await put_to_sleep(model, level, move)
    except StartError as problem:
        fields = {"model": model.name}
        _log.warning("%s: does not sleep, and is unloaded: %s", model.name, problem, extra=fields)
        return False
    residence.gpu_shares = shares_asleep(model)
    await measure(model)
    return True


def next_levels(model: Model) -> Sequence[int]:
    """The levels at which the model can sleep from now on, each deeper than it does."""
    engines = [model.engine_of(instance) for instance in model.instances]
    is_up = all(instance.state in (State.READY, State.DRAINING, State.ASLEEP) for instance in model.instances)
    if model.is_leaving or not is_up:
        return []
    levels = (set(engine.sleep_levels) if isinstance(engine, Sleeper) else set[int]() for engine in engines)
    return sorted(level for level in set.intersection(*levels) if level > model.residence.sleep_level)


async def put_to_sleep(model: Model, level: int, move: Move) -> None:
    """Let an idle model sleep at this level; `move` moves its instances. Raises StartError where one does not."""
    before, model.residence.sleep_level = model.residence.sleep_level, level
    for instance in model.instances:
        move(model, instance, State.ASLEEP, f"level {level}")

    async def step(instance: Instance) -> None:
        engine, connection, card = _sleeper(model, instance)
        await engine.sleep(connection, card, level, before)

    await _for_all(model, model.instances, step)
    model.residence.slept_at_s = time.monotonic()


async def wake(model: Model, move: Move) -> None:
    """Let the instances that sleep serve again, once they answer rightly. Raises StartError where one does not."""
    begin_s = time.monotonic()
    asleep = [instance for instance in model.instances if instance.state is State.ASLEEP]
    for instance in asleep:
        move(model, instance, State.ASLEEP, "wakes")

    async def step(instance: Instance) -> None:
        engine, connection, card = _sleeper(model, instance)
        await engine.wake(connection, card, model.residence.sleep_level)
        await model.engine_of(instance).canary(connection, card)
        await inspect(model.name, model.settings.checks, instance)

    await _for_all(model, asleep, step)
    model.residence.awake()
    model.residence.loaded_at_s = time.monotonic()
    awake = [instance for instance in asleep if instance.state is State.ASLEEP]
    for instance in awake:
        instance.wake_s = time.monotonic() - begin_s
        instance.phases_s = {"wake": instance.wake_s}
        move(model, instance, State.READY, instance.card.note if instance.card else "")
    if not awake:
        raise StartError("its processes ended while it woke")


def _sleeper(model: Model, instance: Instance) -> tuple[Sleeper, Connection, Card]:
    engine = model.engine_of(instance)
    if not isinstance(engine, Sleeper) or instance.connection is None or instance.card is None:
        raise CanaryError("its processes are gone")
    return engine, instance.connection, instance.card


async def _for_all(
    model: Model, instances: Sequence[Instance], step: Callable[[Instance], Coroutine[Any, Any, None]]
) -> None:
    """Take a step with all of them at once. Raises StartError for the first that fails, or when it takes too long."""
    limit_s = model.settings.start_timeout_s
    try:
        async with pausable_timeout(limit_s):
            await asyncio.gather(*map(step, instances))
    except (CheckError, *CONNECTION_LOST) as problem:
        raise StartError(str(problem) or f"not within {limit_s:g} s (start_timeout_s)") from None
    except WRONG_ANSWER as problem:
        raise StartError(describe_wrong(problem)) from None
