"""The canary: asks an idle instance for one token or one prediction, to see whether it still answers.

A process can live and be stuck: stopped, deadlocked, or waiting for a device that is gone. It does not end then, and
its health route still answers 200. An instance whose answers move is not asked, one that computes without answering
gets more time, more still where it must share the processors, and the limits begin anew after a pause of this process
itself.
"""

import asyncio
import time

from servers.engines.base import WRONG_ANSWER, describe_wrong
from servers.engines.connection import CONNECTION_LOST, NotTakenError
from servers.models.instance import Instance, State
from servers.models.model import Model
from servers.models.process import ModelProcess
from servers.processes.group import ProcessGroup
from servers.processes.pause import was_paused
from servers.processes.proc import stopped_pids

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
        elif instance.state is State.ASLEEP:
            continue  # vLLM would not answer until it is woken
        elif not instance.in_flight or model.engine_of(instance).answers_in_parts():
            await _ask(model, instance, process)


async def _ask(model: Model, instance: Instance, process: ModelProcess) -> None:
    timeout_s = model.settings.canary_timeout_s
    slice_s = timeout_s / 4
    canary = asyncio.ensure_future(_request(model, instance))
    asked_at_s = heard_at_s = time.monotonic()
    silent_s = 0.0
    work: _Work | None = None
    try:
        while True:
            begin_s = time.monotonic()
            await asyncio.wait({canary}, timeout=slice_s)
            now_s = time.monotonic()
            if was_paused(slice_s, now_s - begin_s):
                heard_at_s, silent_s = now_s, 0.0
            elif instance.answered_at_s > heard_at_s:
                heard_at_s, silent_s = instance.answered_at_s, now_s - instance.answered_at_s
            else:
                silent_s += work.idle_s(now_s - begin_s) if work else now_s - begin_s
            if instance.state is State.ASLEEP:
                return  # it was put to sleep meanwhile
            if canary.done():
                break
            if silent_s >= timeout_s:
                reason = f"it has not answered anything for {now_s - heard_at_s:.0f} s (canary_timeout_s)"
                _fail(instance, process, reason)
                return
            work = _Work(process)  # an answer usually comes in the first slice, which so costs nothing
        canary.result()
        instance.canaries["ok"] += 1
        instance.canary_s += time.monotonic() - asked_at_s
    except WRONG_ANSWER as problem:
        _fail(instance, process, f"the canary was answered wrongly: {describe_wrong(problem)}")
    except CONNECTION_LOST as problem:
        reason = str(problem) if isinstance(problem, NotTakenError) else type(problem).__name__
        _fail(instance, process, f"the canary was not answered: {reason}")
    finally:
        canary.cancel()
        await asyncio.gather(canary, return_exceptions=True)


class _Work:
    """What all processes of the model do from now on: compute, wait for a processor, or neither.

    All, since a first request may have code compiled, which processes of the compiler's do.
    """

    def __init__(self, process: ModelProcess) -> None:
        self._group = ProcessGroup(process.group_id) if process.group_id else None  # none for an instance elsewhere
        if self._group:
            self._cpu_s, self._delays_s = self._group.cpu_s(), self._group.delays_s()

    def idle_s(self, elapsed_s: float) -> float:
        """How much of the time since then counts as silence: all of it, or a part where they compute.

        Where they wait for processors, only the share that they got counts.
        """
        if self._group is None:
            return elapsed_s
        used_s = max(0.0, self._group.cpu_s() - self._cpu_s)
        delays_s = self._group.delays_s().items()
        delayed_s = sum(max(0.0, delay_s - self._delays_s.get(pid, 0)) for pid, delay_s in delays_s)
        if used_s + delayed_s <= _BUSY_CORES * elapsed_s:
            return elapsed_s
        return elapsed_s / _BUSY_FACTOR * used_s / (used_s + delayed_s)


async def _request(model: Model, instance: Instance) -> None:
    """The canary, and once more where its connection is lost."""
    assert instance.connection is not None
    assert instance.card is not None
    try:
        await model.engine_of(instance).canary(instance.connection, instance.card)
    except CONNECTION_LOST:
        await asyncio.sleep(_RECONNECT_S)
        await model.engine_of(instance).canary(instance.connection, instance.card)


def _fail(instance: Instance, process: ModelProcess, reason: str) -> None:
    instance.canaries["failed"] += 1
    process.give_up(reason)
