"""Which requests are refused after deaths, and that their neighbours are not."""

import asyncio

import pytest

from servers.errors import ApiError, BystanderError
from servers.models import quarantine as quarantine_module
from servers.models.quarantine import Quarantine

DIED = ApiError(503, "it died", code="model_died")
SAME_DEATH_S = 0.05


@pytest.fixture(autouse=True)
def quick_deaths(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is up again soon, so that the next death is another one."""
    monkeypatch.setattr(quarantine_module, "_SAME_DEATH_S", SAME_DEATH_S)


def quarantine_of_one() -> Quarantine:
    return Quarantine("one")


async def send(
    quarantine: Quarantine,
    body: bytes,
    end: asyncio.Event | None = None,
    error: ApiError | None = None,
    deaths: int = 0,
) -> None:
    """One request: it is answered, or fails, once `end` is set."""

    async def answer() -> None:
        if end:
            await end.wait()
        if error is not None:
            raise error

    await quarantine.watch("/predict", body, "id", answer, lambda: deaths)


async def dies(quarantine: Quarantine, *bodies: bytes) -> list[str | None]:
    """The process dies with these requests in hand; the code that each was answered with."""
    death = asyncio.Event()
    tasks = [asyncio.create_task(send(quarantine, body, death, DIED)) for body in bodies]
    await asyncio.sleep(0.01)
    death.set()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    return [end.code if isinstance(end, ApiError) else None for end in ends]


def test_a_request_that_was_alone_at_two_deaths_is_refused_from_then_on(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        quarantine = quarantine_of_one()
        assert await dies(quarantine, b"killer") == ["model_died"]
        await asyncio.sleep(2 * SAME_DEATH_S)  # until the process is up again
        assert await dies(quarantine, b"killer") == ["model_died"]
        with pytest.raises(ApiError) as refused:
            await send(quarantine, b"killer")
        assert (refused.value.status, refused.value.code) == (422, "request_quarantined")
        await send(quarantine, b"another")

    asyncio.run(run())
    assert "request id killed its process twice" in caplog.text
    assert "killer" not in caplog.text


def test_a_request_that_no_process_had_taken_is_no_suspect() -> None:
    async def run() -> None:
        quarantine = quarantine_of_one()
        for _ in range(3):
            with pytest.raises(BystanderError):
                await send(quarantine, b"queued", error=BystanderError(503, "it died", code="model_died"), deaths=1)
            await asyncio.sleep(2 * SAME_DEATH_S)  # until the process is up again
        await send(quarantine, b"queued")

    asyncio.run(run())


def test_an_answer_clears_a_suspect() -> None:
    async def run() -> None:
        quarantine = quarantine_of_one()
        for _ in range(3):
            await dies(quarantine, b"innocent")
            await send(quarantine, b"innocent")

    asyncio.run(run())


def test_neighbours_of_a_killer_are_not_taken_for_it() -> None:
    async def run() -> None:
        quarantine = quarantine_of_one()
        everybody = [b"killer", *(b"innocent %d" % number for number in range(5))]
        for _ in range(2):
            assert await dies(quarantine, *everybody) == ["model_died"] * 6
            await asyncio.sleep(2 * SAME_DEATH_S)
        # From now on they are let in one at a time: whoever is alone at the next death it was.
        answered = [asyncio.create_task(send(quarantine, body)) for body in everybody[1:]]
        killing = asyncio.create_task(send(quarantine, b"killer", error=DIED))
        await asyncio.gather(*answered)
        with pytest.raises(ApiError, match="it died"):
            await killing
        with pytest.raises(ApiError, match="not retried"):
            await send(quarantine, b"killer")
        for body in everybody[1:]:
            await send(quarantine, body)

    asyncio.run(run())


def test_the_same_request_twice_at_one_death_is_not_convicted_by_it() -> None:
    async def run() -> None:
        quarantine = quarantine_of_one()
        await dies(quarantine, b"popular", b"popular", b"popular")
        await send(quarantine, b"popular")

    asyncio.run(run())


def test_the_same_request_twice_at_a_time_is_no_company() -> None:
    async def run() -> None:
        quarantine = quarantine_of_one()
        await dies(quarantine, b"killer", b"killer")
        await asyncio.sleep(2 * SAME_DEATH_S)
        await dies(quarantine, b"killer", b"killer")
        with pytest.raises(ApiError, match="not retried"):
            await send(quarantine, b"killer")

    asyncio.run(run())


def test_copies_that_wait_to_be_alone_are_refused_once_one_has_proven_guilty() -> None:
    async def run() -> None:
        quarantine = quarantine_of_one()
        await dies(quarantine, b"killer", b"neighbour")
        await asyncio.sleep(2 * SAME_DEATH_S)  # until the process is up again
        await dies(quarantine, b"killer", b"neighbour")
        await asyncio.sleep(2 * SAME_DEATH_S)
        ends = await dies(quarantine, b"killer", b"killer", b"killer")
        assert ends == ["model_died", "request_quarantined", "request_quarantined"]
        await send(quarantine, b"neighbour")

    asyncio.run(run())


def test_a_death_of_long_ago_counts_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        quarantine = quarantine_of_one()
        await dies(quarantine, b"unlucky")
        await asyncio.sleep(2 * SAME_DEATH_S)
        monkeypatch.setattr(quarantine_module, "_SUSPECT_TTL_S", SAME_DEATH_S)
        assert await dies(quarantine, b"unlucky") == ["model_died"]
        monkeypatch.undo()
        await send(quarantine, b"unlucky")

    asyncio.run(run())
