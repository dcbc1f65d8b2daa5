"""The watch over an instance that is ready: the canary, or what its replica tells.

A replica asks the model itself, and tells its state as soon as that changes. One that drains gets no new request and
ends those that it has; one that is silent, or whose model is not ready, is left.
"""

import asyncio
import time
from collections.abc import Callable

import msgspec

from servers.engines.base import CanaryError
from servers.engines.connection import CONNECTION_LOST, AnswerBrokenError
from servers.engines.replica import awaited, wire
from servers.engines.replica.engine import DRAINING, READY, ReplicaEngine
from servers.models.canary import until_stuck
from servers.models.instance import Instance, State
from servers.models.model import Model
from servers.models.process import ModelProcess
from servers.processes.pause import pausable_timeout

_INTERVAL_S = 4.0
# Replicas on Ray hear from each question how much waits, and their number follows it.
_RAY_INTERVAL_S = 1.0
_POLL_S = 0.02


async def watch(model: Model, instance: Instance, process: ModelProcess, on_drain: Callable[[], None]) -> None:
    """Give up a process that is stuck, and a replica that is not ready any more; `on_drain` tells that one drains."""
    engine = model.engine_of(instance)
    if isinstance(engine, ReplicaEngine):
        await _until_left(model, instance, process, engine, on_drain)
    else:
        await until_stuck(model, instance, process)


async def _until_left(
    model: Model, instance: Instance, process: ModelProcess, engine: ReplicaEngine, on_drain: Callable[[], None]
) -> None:
    while True:
        begin_s = time.monotonic()
        try:
            state = await _ask(model, instance, engine)
        except CONNECTION_LOST as problem:
            _fail(instance, process, f"its replica left: {problem or type(problem).__name__}")
            return
        except (CanaryError, AnswerBrokenError, msgspec.MsgspecError) as problem:
            _fail(instance, process, f"its replica answered wrongly: {problem}")
            return
        if state.state == READY:
            instance.canaries["ok"] += 1
            instance.canary_s += max(0.0, time.monotonic() - begin_s - _interval_s(model))
            continue
        if state.state == DRAINING:
            on_drain()
            while instance.in_flight:  # noqa: ASYNC110 # requests tell nobody of their end
                await asyncio.sleep(_POLL_S)
            process.give_up("its replica is being stopped")
        else:
            _fail(instance, process, f"its model is {state.state} there: {state.detail}".rstrip(": "))
        return


async def _ask(model: Model, instance: Instance, engine: ReplicaEngine) -> wire.State:
    """The state of the replica. Raises CONNECTION_LOST, TimeoutError included."""
    assert instance.connection is not None
    interval_s, timeout_s = _interval_s(model), model.settings.canary_timeout_s
    try:
        async with pausable_timeout(interval_s + timeout_s):
            return await engine.follow(instance.connection, interval_s, _share(model))
    except TimeoutError:
        raise TimeoutError(f"it has not answered anything for {timeout_s:g} s (canary_timeout_s)") from None


def _interval_s(model: Model) -> float:
    interval_s = model.settings.canary_interval_s or _INTERVAL_S
    return min(interval_s, _RAY_INTERVAL_S) if awaited.ADDRESS in model.settings.instances else interval_s


def _share(model: Model) -> float:
    """The part of the waiting requests that each ready instance counts as its own."""
    ready_count = sum(instance.state is State.READY for instance in model.instances)
    return model.admission.waiting / max(1, ready_count)


def _fail(instance: Instance, process: ModelProcess, reason: str) -> None:
    instance.canaries["failed"] += 1
    process.give_up(reason)
