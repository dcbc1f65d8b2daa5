"""Waiting for what has no event of its own: a condition is checked again and again until it holds."""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(
    condition: Callable[[], T | None],
    timeout_s: float = 20,
    *,
    every_s: float = 0.02,
    problem: Callable[[], object] = lambda: "the condition never held",
) -> T:
    """Check until the condition is true and return its value.

    Raises AssertionError with what `problem` returns where it does not hold within `timeout_s`. An exception of the
    condition goes through: it may end the wait earlier.
    """
    deadline_s = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline_s, f"{problem()} ({timeout_s:g} s)"
        time.sleep(every_s)
    return value


async def wait_until_async(condition: Callable[[], object], timeout_s: float = 20) -> None:
    """The same on an event loop. Raises TimeoutError."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 # what is awaited has no event
            await asyncio.sleep(0.02)
