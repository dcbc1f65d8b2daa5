"""The start gate: which models may start side by side.

A starting model keeps cores busy and takes memory that nobody sees yet, so two of them can starve each other or exhaust
what each alone would find. The gate lets in as many as cores and memory hold, by rough estimates. It only ever delays:
a lone model is never held back, whatever the estimate says.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable

from servers.engines.base import Needs
from servers.telemetry.memory import memory


class StartGate:
    """What the models take that are starting right now, by name."""

    def __init__(self) -> None:
        self._cores = len(os.sched_getaffinity(0))
        self._starting: dict[str, Needs] = {}
        self._changed = asyncio.Condition()

    @contextlib.asynccontextmanager
    async def room_for(self, name: str, needs: Needs, on_wait: Callable[[], None]) -> AsyncIterator[None]:
        """Hold the model back until there is room for it; `on_wait` is called when it must wait."""
        async with self._changed:
            if not self._has_room(needs):
                on_wait()
                await self._changed.wait_for(lambda: self._has_room(needs))
            self._starting[name] = needs
        try:
            yield
        finally:
            async with self._changed:
                del self._starting[name]
                self._changed.notify_all()

    def _has_room(self, needs: Needs) -> bool:
        if not self._starting:
            return True
        together = [needs, *self._starting.values()]
        fits = sum(each.memory_bytes for each in together) <= memory().available_bytes
        return fits and sum(each.cores for each in together) <= self._cores
