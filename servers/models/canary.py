"""The canary: whether a model that is up still answers.

A process can live and be stuck: stopped, deadlocked, waiting for a device that is gone. Nothing ends then, and every
health route says that all is well. So a model at rest is asked for one token or one prediction every few seconds, and
its processes are looked at. It refuses to call busy stuck: a model whose answers move is left alone, and so is one
that computes, for a while.
"""

import asyncio
import time

import aiohttp

from servers.engines.base import CanaryError
from servers.models.model import Model
from servers.models.process import ModelProcess
from servers.processes import group as process_group

# A model that says nothing but keeps a core busy (a long prompt on a CPU) gets this many times its canary's timeout.
_PATIENCE_WITH_BUSY = 8
_BUSY_CORES = 0.5


async def until_stuck(model: Model, process: ModelProcess) -> None:
    """Ask again and again, and give the process up once it does not answer; never returns while it does."""
    settings = model.settings
    if settings.canary_interval_s is None:
        await asyncio.Event().wait()
        return
    stopped: set[int] = set()
    while not process.broken.is_set():
        await asyncio.sleep(settings.canary_interval_s)
        before, stopped = stopped, set(process_group.stopped(process.watched))
        if twice := before & stopped:
            process.give_up(f"its process {min(twice)} was stopped by a signal")
        elif time.monotonic() - model.answered_at_s < settings.canary_interval_s:
            continue  # it is at work, and one can see it
        elif not model.in_flight or model.engine.answers_in_parts():
            await _ask(model, process)


async def _ask(model: Model, process: ModelProcess) -> None:
    assert model.session is not None
    assert model.card is not None
    canary = asyncio.ensure_future(model.engine.canary(model.session, model.card))
    asked_at_s = time.monotonic()
    try:
        while not canary.done():
            used_s = process_group.cpu_s(process.watched)
            await asyncio.wait({canary}, timeout=model.settings.canary_timeout_s / 4)
            now_s = time.monotonic()
            silent_s = now_s - max(asked_at_s, model.answered_at_s)
            busy = process_group.cpu_s(process.watched) - used_s > _BUSY_CORES * model.settings.canary_timeout_s / 4
            allowed_s = model.settings.canary_timeout_s * (_PATIENCE_WITH_BUSY if busy else 1)
            if not canary.done() and silent_s >= allowed_s:
                _fail(model, process, f"it has not answered anything for {silent_s:.0f} s (canary_timeout_s)")
                return
        canary.result()
        model.canaries["ok"] += 1
        model.canary_s += time.monotonic() - asked_at_s
    except (CanaryError, KeyError, ValueError) as problem:
        _fail(model, process, f"the canary was answered wrongly: {problem}")
    except (aiohttp.ClientError, OSError) as problem:
        _fail(model, process, f"the canary was not answered: {type(problem).__name__}")
    finally:
        canary.cancel()
        await asyncio.gather(canary, return_exceptions=True)


def _fail(model: Model, process: ModelProcess, reason: str) -> None:
    model.canaries["failed"] += 1
    process.give_up(reason)
