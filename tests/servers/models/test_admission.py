"""Who runs, who waits, who is next and who is turned away."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from configs.settings import VllmModel
from servers.errors import ApiError
from servers.models.admission import Admission
from servers.models.instance import Instance
from servers.models.model import Model
from tests.services.tiny_engine import TinyEngine


def admission(**limits: int) -> Admission:
    return limited(**limits).admission


def limited(**limits: int) -> Model:
    settings = VllmModel(engine="vllm", source="nowhere", **limits)
    return Model("one", settings, TinyEngine("one"), [Instance(Path("/nowhere"), Path("/nowhere"))])


class Crowd:
    """Requests that hold their turn until they are told to leave; `order` is who got a turn, in order."""

    def __init__(self, gate: Admission) -> None:
        self._gate = gate
        self.order: list[str] = []
        self.leave = asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []

    async def send(self, caller: str, count: int = 1, tokens: int = 0) -> None:
        self.tasks += [asyncio.create_task(self._one(caller, tokens)) for _ in range(count)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    async def _one(self, caller: str, tokens: int) -> None:
        begin_s = await self._gate.enter(caller, tokens)
        try:
            self.order.append(caller)
            await self.leave.wait()
        finally:
            self._gate.leave(caller, tokens, begin_s)

    def refused(self) -> int:
        return sum(
            isinstance(task.exception(), ApiError) for task in self.tasks if task.done() and not task.cancelled()
        )


@contextlib.asynccontextmanager
async def crowd(gate: Admission) -> AsyncIterator[Crowd]:
    people = Crowd(gate)
    try:
        yield people
    finally:
        people.leave.set()
        await asyncio.gather(*people.tasks, return_exceptions=True)
        assert (gate.running, gate.waiting) == (0, 0), "nothing is held when all have gone"


def test_so_many_run_so_many_wait_and_the_rest_is_told_when_to_come_again() -> None:
    async def run() -> None:
        gate = admission(max_running=2, max_waiting=3)
        async with crowd(gate) as people:
            await people.send("a", 7)
            assert (gate.running, gate.waiting, people.refused()) == (2, 3, 2)
            error = people.tasks[-1].exception()
            assert isinstance(error, ApiError)
            assert (error.status, error.code) == (429, "overloaded")
            assert int(error.headers["retry-after"]) >= 1
            assert "models.one.max_waiting" in error.message
            people.leave.set()
            await asyncio.gather(*people.tasks[:5])
            assert people.order == ["a"] * 5

    asyncio.run(run())


def test_the_free_place_goes_to_the_caller_with_the_fewest_running() -> None:
    async def run() -> None:
        gate = admission(max_running=4, max_waiting=20)
        async with crowd(gate) as people:
            await people.send("greedy", 10)
            await people.send("modest", 2)
            people.tasks[0].cancel()
            people.tasks[1].cancel()
            await asyncio.sleep(0.01)
            assert people.order == ["greedy"] * 4 + ["modest"] * 2

    asyncio.run(run())


def test_a_full_room_makes_place_for_a_caller_with_less_in_it() -> None:
    async def run() -> None:
        gate = admission(max_running=1, max_waiting=4)
        async with crowd(gate) as people:
            await people.send("greedy", 5)
            await people.send("modest", 1)
            assert (gate.waiting, people.refused()) == (4, 1)
            assert isinstance(people.tasks[4].exception(), ApiError), "the newest of the greedy one's"
            await people.send("greedy", 1)
            assert people.refused() == 2, "which does not push others out in turn"

    asyncio.run(run())


def test_who_leaves_while_waiting_gives_the_place_back() -> None:
    async def run() -> None:
        gate = admission(max_running=1, max_waiting=1)
        async with crowd(gate) as people:
            await people.send("a", 2)
            people.tasks[1].cancel()
            await asyncio.sleep(0.01)
            assert gate.waiting == 0
            await people.send("a")
            assert people.refused() == 0

    asyncio.run(run())


def test_who_leaves_at_the_moment_of_its_turn_gives_it_on() -> None:
    async def run() -> None:
        gate = admission(max_running=1, max_waiting=2)
        async with crowd(gate) as people:
            await people.send("a", 3)
            people.tasks[0].cancel()
            await asyncio.sleep(0)  # the second has its turn now and does not know it yet
            people.tasks[1].cancel()
            await asyncio.sleep(0.01)
            assert (gate.running, gate.waiting) == (1, 0)
            assert not people.tasks[2].done()

    asyncio.run(run())


def test_tokens_in_flight_are_bounded_but_a_lone_request_passes() -> None:
    async def run() -> None:
        gate = admission(max_tokens_in_flight=100)
        async with crowd(gate) as people:
            await people.send("a", tokens=150)
            assert people.refused() == 0, "whether it is too long at all is the engine's to say"
            await people.send("a", tokens=1)
            assert people.refused() == 1
        async with crowd(gate) as people:
            await people.send("a", 2, tokens=50)
            assert people.refused() == 0

    asyncio.run(run())


def test_the_advice_is_how_long_the_waiting_ones_will_take() -> None:
    async def run() -> None:
        now_s = 0.0
        gate = Admission(limited(max_running=2, max_waiting=3), lambda: now_s)
        begin_s = await gate.enter("a", 0)
        now_s += 10
        gate.leave("a", 0, begin_s)
        async with crowd(gate) as people:
            await people.send("a", 6)
            error = people.tasks[-1].exception()
            assert isinstance(error, ApiError)
            assert error.headers["retry-after"] == "20", "10 s each, two at a time, three before and this one"

    asyncio.run(run())


@pytest.mark.parametrize("count", [1, 5])
def test_a_limit_that_is_raised_counts_at_the_next_request(count: int) -> None:
    async def run() -> None:
        model = limited(max_running=1, max_waiting=0)
        gate = model.admission
        async with crowd(gate) as people:
            await people.send("a", 2)
            assert people.refused() == 1
            model.settings = model.settings.model_copy(update={"max_running": 1 + count})
            await people.send("a", count)
            assert gate.running == 1 + count

    asyncio.run(run())


def test_one_that_is_cancelled_as_a_newcomer_comes_makes_room_and_nobody_fails() -> None:
    async def run() -> None:
        gate = admission(max_running=1, max_waiting=2)
        async with crowd(gate) as people:
            await people.send("greedy", 3)
            people.tasks[2].cancel()  # its future is cancelled at once, it leaves the row a turn later
            newcomer = asyncio.ensure_future(gate.enter("modest", 0))
            people.tasks[1].cancel()
            await asyncio.sleep(0)
            people.leave.set()
            gate.leave("modest", 0, await newcomer)
            assert people.refused() == 0

    asyncio.run(run())
