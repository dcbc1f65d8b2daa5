"""Pauses of this process: a suspended host, a migrated virtual machine, SIGSTOP, a debugger.

Time that passes while this process does not run says nothing about how fast others answer, so it must not count
against them. A pause shows in a sleep that lasts far longer than was asked for; a loop that is blocked looks the same,
and reads no answers either.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

_LONGEST_SLICE_S = 1.0
# A loop on a busy machine is late by less.
_LATE_S = 0.5


def was_paused(expected_s: float, elapsed_s: float) -> bool:
    """Whether this process did not run in a sleep of `expected_s` seconds that took `elapsed_s`."""
    return elapsed_s > 2 * expected_s + _LATE_S


class PauseClock:
    """When this process last came out of a pause, for limits that begin anew then; a loop calls `tick` each second."""

    def __init__(self, tick_s: float = 1.0) -> None:
        self._interval_s = tick_s
        self._tick_s: float | None = None
        self._resumed_s = 0.0

    def tick(self) -> None:
        """Note that this process runs."""
        self._resumed_s = self.resumed_s()
        self._tick_s = time.monotonic()

    def resumed_s(self) -> float:
        """The end of the last pause (`time.monotonic()`); now, where no tick came since it; 0 where there was none."""
        now_s = time.monotonic()
        is_late = self._tick_s is not None and was_paused(self._interval_s, now_s - self._tick_s)
        return now_s if is_late else self._resumed_s


@contextlib.asynccontextmanager
async def pausable_timeout(limit_s: float) -> AsyncIterator[None]:
    """As `asyncio.timeout`, but the limit begins anew after a pause. Raises TimeoutError."""
    async with asyncio.timeout(None) as timeout:
        expiry = asyncio.create_task(_expire(timeout, limit_s))
        try:
            yield
        finally:
            expiry.cancel()


async def _expire(timeout: asyncio.Timeout, limit_s: float) -> None:
    slice_s = min(limit_s / 4, _LONGEST_SLICE_S)
    left_s = limit_s
    while left_s > 0:
        begin_s = time.monotonic()
        await asyncio.sleep(min(slice_s, left_s))
        elapsed_s = time.monotonic() - begin_s
        left_s = limit_s if was_paused(slice_s, elapsed_s) else left_s - elapsed_s
    timeout.reschedule(asyncio.get_running_loop().time())
