"""The start gate: which instances may start at the same time.

A starting model keeps cores busy and takes memory that is not yet visible, so two of them can slow each other down or
run out of memory where each alone would fit. The gate admits as many as cores and memory hold, by rough estimates. An
instance that would start alone is admitted whatever the estimate.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable

from servers.engines.base import Needs
from servers.telemetry.memory import memory


class StartGate:
    """The needs of the instances that are starting, by name."""

    def __init__(self) -> None:
        self._cores = len(os.sched_getaffinity(0))
        self._starting: dict[str, Needs] = {}
        self._changed = asyncio.Condition()

    @contextlib.asynccontextmanager
    async def room_for(self, name: str, needs: Needs, on_wait: Callable[[], None]) -> AsyncIterator[None]:
        """Wait until there is room for the instance, and hold it through the block; `on_wait` is called for a wait."""
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
        if not any(starting.cores for starting in self._starting.values()):
            return True
        sum_bytes = sum(starting.memory_bytes for starting in (needs, *self._starting.values()))
        cores = sum(starting.cores for starting in (needs, *self._starting.values()))
        return sum_bytes <= memory().available_bytes and cores <= self._cores
