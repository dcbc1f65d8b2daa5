"""What runs beside a platform."""

import asyncio
import logging

import pytest

from servers.platform import serve
from servers.processes import background


def test_work_beside_a_platform_that_fails_is_logged_and_begins_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "_PAUSE_S", 0.01)
    problems = [OSError("the disk is gone"), ValueError("no such file")]

    async def run() -> None:
        goes_on = asyncio.Event()

        async def follow() -> None:
            if problems:
                raise problems.pop(0)
            goes_on.set()

        async with serve._beside("the follower", follow), asyncio.timeout(5):
            await goes_on.wait()

    with caplog.at_level(logging.ERROR):
        asyncio.run(run())
    assert [record.message.partition(",")[0] for record in caplog.records] == ["the follower: failed"] * 2
    assert "OSError: the disk is gone" in caplog.text
