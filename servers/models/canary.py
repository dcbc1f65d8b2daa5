"""The canary: asks an idle instance for one token or one prediction, to see whether it still answers.

A process can live and be stuck: stopped, deadlocked, or waiting for a device that is gone. It does not end then, and
its health route still answers 200. An instance whose answers move is not asked, one that computes without answering
gets more time, and the limits begin anew after a pause of this process itself.
"""

import asyncio
import time

from servers.engines.base import CanaryError
from servers.engines.connection import CONNECTION_LOST
from servers.models.instance import Instance
from servers.models.model import Model
from servers.models.process import ModelProcess
from servers.processes.pause import was_paused
from servers.processes.proc import cpu_s, stopped_pids

# An instance that is silent but keeps a core busy (a long prompt on a CPU) gets this many times its canary's timeout.
_BUSY_FACTOR = 8
_BUSY_CORES = 0.5
# A kept connection may turn out to be closed by the child; by then the end of the others has been read as well.
_RECONNECT_S = 0.2


async def until_stuck(model: Model, instance: Instance, process: ModelProcess) -> None:
    """Ask at each interval, and give the process up when it does not answer; does not return while it answers."""
    settings = model.settings
    if settings.canary_interval_s is None:
        await asyncio.Event().wait()
        return
    stopped: set[int] = set()
    while not process.broken.is_set():
        begin_s = time.monotonic()
        await asyncio.sleep(settings.canary_interval_s)
        if was_paused(settings.canary_interval_s, time.monotonic() - begin_s):
            stopped = set()
        before, stopped = stopped, set(stopped_pids(process.watched))
        if twice := before & stopped:
            process.give_up(f"its process {min(twice)} was stopped by a signal")
        elif time.monotonic() - instance.answered_at_s < settings.canary_interval_s:
            continue  # its answers move
        elif not instance.in_flight or model.engine.answers_in_parts():
            await _ask(model, instance, process)


async def _ask(model: Model, instance: Instance, process: ModelProcess) -> None:
    timeout_s = model.settings.canary_timeout_s
    slice_s = timeout_s / 4
    canary = asyncio.ensure_future(_request(model, instance))
    asked_at_s = heard_at_s = time.monotonic()
    try:
        while not canary.done():
            used_s, begin_s = cpu_s(process.watched), time.monotonic()
            await asyncio.wait({canary}, timeout=slice_s)
            now_s = time.monotonic()
            heard_at_s = now_s if was_paused(slice_s, now_s - begin_s) else max(heard_at_s, instance.answered_at_s)
            silent_s = now_s - heard_at_s
            busy = cpu_s(process.watched) - used_s > _BUSY_CORES * slice_s
            if not canary.done() and silent_s >= timeout_s * (_BUSY_FACTOR if busy else 1):
                _fail(instance, process, f"it has not answered anything for {silent_s:.0f} s (canary_timeout_s)")
                return
        canary.result()
        instance.canaries["ok"] += 1
        instance.canary_s += time.monotonic() - asked_at_s
    except (CanaryError, KeyError, ValueError) as problem:
        _fail(instance, process, f"the canary was answered wrongly: {problem}")
    except CONNECTION_LOST as problem:
        _fail(instance, process, f"the canary was not answered: {type(problem).__name__}")
    finally:
        canary.cancel()
        await asyncio.gather(canary, return_exceptions=True)


async def _request(model: Model, instance: Instance) -> None:
    """The canary, and once more where its connection is lost."""
    assert instance.connection is not None
    assert instance.card is not None
    try:
        await model.engine.canary(instance.connection, instance.card)
    except CONNECTION_LOST:
        await asyncio.sleep(_RECONNECT_S)
        await model.engine.canary(instance.connection, instance.card)


def _fail(instance: Instance, process: ModelProcess, reason: str) -> None:
    instance.canaries["failed"] += 1
    process.give_up(reason)
