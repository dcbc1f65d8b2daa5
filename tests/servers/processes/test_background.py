"""What must come to an end does, however often it is told to stop."""

import asyncio

import pytest

from servers.processes.background import complete


def test_a_step_is_completed_through_two_cancellations() -> None:
    async def run() -> None:
        done = False

        async def step() -> None:
            nonlocal done
            await asyncio.sleep(0.1)
            done = True

        task = asyncio.create_task(complete(step()))
        for _ in range(2):
            await asyncio.sleep(0.01)
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert done

    asyncio.run(run())


def test_the_failure_of_a_step_is_raised() -> None:
    async def step() -> None:
        raise ValueError("mistake")

    with pytest.raises(ValueError, match="mistake"):
        asyncio.run(complete(step()))
