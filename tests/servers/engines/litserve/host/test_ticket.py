"""A request that is cancelled takes all of its work with it, also what comes later."""

import asyncio
from unittest.mock import Mock

from servers.engines.litserve.host import wire
from servers.engines.litserve.host.ticket import Ticket
from servers.engines.litserve.host.work import Work


def test_what_a_cancelled_request_gets_later_is_cancelled_and_tasks_take_their_first_step() -> None:
    began: list[str] = []

    async def work(name: str) -> None:
        began.append(name)
        await asyncio.sleep(60)

    async def run() -> None:
        request = wire.Request(1, 0, 0, "application/json", "r")
        ticket = Ticket(request, Mock(), Mock())
        works = [Work(None, Mock(), request) for _ in range(2)]
        tasks = [asyncio.create_task(work("before"))]
        ticket.add(works[0])
        ticket.attach(tasks[0])
        ticket.cancel()
        tasks.append(asyncio.create_task(work("after")))
        ticket.add(works[1])
        ticket.attach(tasks[1])
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(end) for end in ends] == [asyncio.CancelledError] * 2
        assert [work.is_cancelled for work in works] == [True, True]

    asyncio.run(run())
    assert began == ["before", "after"]
