"""A 500 of a process: whether it may be the last word of one that dies."""

import asyncio
from pathlib import Path

import pytest

from servers.engines.base import Card
from servers.gateway import forward
from servers.models.instance import Instance


@pytest.mark.parametrize(("serving", "is_dying"), [("host", False), ("litserve", True), (None, True)])
def test_a_worker_of_the_host_that_has_answered_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, serving: str | None, is_dying: bool
) -> None:
    monkeypatch.setattr(forward, "_DYING_S", 60.0)
    instance = Instance(Path("a.sock"), Path("a.log"), card=Card(frozenset(), serving=serving))

    async def run() -> bool:
        asyncio.get_running_loop().call_later(0.1, lambda: setattr(instance, "deaths", 1))
        return await asyncio.wait_for(forward.is_dying(instance, 0), 30)

    assert asyncio.run(run()) is is_dying
