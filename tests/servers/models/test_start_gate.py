"""Which models start side by side."""

import asyncio

import psutil
import pytest

from servers.engines.base import Needs
from servers.models.start_gate import StartGate


@pytest.fixture(autouse=True)
def _four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(4))


def _order(*needs: Needs) -> list[str]:
    """What happens when models with these needs come at once: who enters, who waits, who is done."""
    happened: list[str] = []

    async def start(gate: StartGate, name: str, needs: Needs) -> None:
        async with gate.room_for(name, needs, on_wait=lambda: happened.append(f"{name} waits")):
            happened.append(f"{name} starts")
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        happened.append(f"{name} is up")

    async def run() -> None:
        gate = StartGate()
        async with asyncio.TaskGroup() as group:
            for name, each in zip("abcdef", needs, strict=False):
                group.create_task(start(gate, name, each))

    asyncio.run(run())
    return happened


def test_models_that_fit_start_side_by_side() -> None:
    assert _order(Needs(1, 1), Needs(1, 1))[:2] == ["a starts", "b starts"]


def test_a_model_that_does_not_fit_beside_another_waits_for_it() -> None:
    most = psutil.virtual_memory().total
    happened = _order(Needs(1, most), Needs(1, 1))
    assert happened.index("b waits") < happened.index("a is up")
    assert happened[-1] == "b is up"


def test_a_lone_model_is_never_held_back() -> None:
    assert _order(Needs(9, 10 * psutil.virtual_memory().total)) == ["a starts", "a is up"]


def test_no_more_models_start_at_once_than_there_are_cores() -> None:
    happened = _order(Needs(2, 1), Needs(1, 1), Needs(1, 1), Needs(1, 1))
    assert happened[:4] == ["a starts", "b starts", "c starts", "d waits"]
