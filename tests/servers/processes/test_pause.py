"""A limit that begins anew after a pause of the process."""

import asyncio
import time

import pytest

from servers.processes.pause import PauseClock, pausable_timeout


def test_without_a_pause_the_limit_holds() -> None:
    async def run() -> None:
        async with pausable_timeout(0.3):
            await asyncio.sleep(20)

    begin_s = time.monotonic()
    with pytest.raises(TimeoutError):
        asyncio.run(run())
    assert time.monotonic() - begin_s >= 0.3


def test_a_pause_does_not_count_and_the_limit_begins_anew() -> None:
    async def run() -> None:
        async with pausable_timeout(0.6):
            await asyncio.sleep(0.4)
            time.sleep(2)  # noqa: ASYNC251 # the process does not run
            await asyncio.sleep(20)

    begin_s = time.monotonic()
    with pytest.raises(TimeoutError):
        asyncio.run(run())
    assert time.monotonic() - begin_s >= 0.4 + 2 + 0.6


def test_what_ends_in_time_is_not_disturbed() -> None:
    async def run() -> str:
        async with pausable_timeout(0.2):
            result = await asyncio.sleep(0.01, "done")
        await asyncio.sleep(0.4)
        return result

    assert asyncio.run(run()) == "done"


def test_a_clock_whose_ticks_stay_away_shows_a_pause_until_the_next() -> None:
    clock = PauseClock(tick_s=0.05)
    assert clock.resumed_s() == 0
    clock.tick()
    assert clock.resumed_s() == 0
    time.sleep(0.7)  # the process does not run
    resumed_s = time.monotonic()
    assert clock.resumed_s() >= resumed_s
    clock.tick()
    end_s = clock.resumed_s()
    assert resumed_s <= end_s == clock.resumed_s()
