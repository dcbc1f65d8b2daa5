"""Work in the background of this process: it does not stop in silence, and what must come to an end is not cut off."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

_log = logging.getLogger("litport.background")

_PAUSE_S = 5.0


async def keep_up(name: str, work: Callable[[], Awaitable[None]]) -> None:
    """Do the work until it returns or is cancelled; where it raises, the log says so, and it begins again."""
    while True:
        try:
            await work()
            return
        except Exception:  # nobody awaits it, so nobody else would know
            _log.exception("%s: failed, and begins again in %g s", name, _PAUSE_S)
        await asyncio.sleep(_PAUSE_S)


async def complete(step: Coroutine[Any, Any, object]) -> None:
    """Await the step to its end even when this task is cancelled meanwhile, also repeatedly, and raise that then."""
    task = asyncio.ensure_future(step)
    cancellation = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as problem:
            cancellation = problem
    task.result()
    if cancellation is not None:
        raise cancellation
