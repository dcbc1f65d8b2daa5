"""Gateways that share a store let in as much as one of them would, and go on by themselves where it is away."""

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import AsyncIterator, Iterator

import pytest
from prometheus_client import CollectorRegistry

from servers.errors import ApiError
from servers.gateway.keys import Key
from servers.gateway.limits import store
from servers.gateway.limits.gate import Entry, Gate
from servers.gateway.limits.store import Store
from tests.services.polling import wait_until_async
from tests.services.redis_server import PASSWORD, RedisServer, redis_server

pytestmark = pytest.mark.long

IN_TIME_S = 1
"""A request that meets a silent store waits a tenth of it; the rest is for other tests beside this one."""


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


def test_requests_at_a_time_are_those_of_both(redis: RedisServer) -> None:
    async def run() -> None:
        async with _gateway(redis) as one, _gateway(redis) as two:
            keys = [Key("at-a-time", max_in_flight=8) for _ in range(2)]
            sides = [(gateway.gate, key) for gateway, key in zip((one, two), keys, strict=True)] * 50
            leases = await asyncio.gather(*(_enter(gate, key) for gate, key in sides))
            runs = [(gate, key, lease) for (gate, key), lease in zip(sides, leases, strict=True) if lease]
            assert len(runs) == 8 == sum(key.in_flight for key in keys)
            for gate, key, lease in runs[:3]:
                gate.leave(key, lease, 0, None)
            again = await asyncio.gather(*(_enter(gate, key) for gate, key in sides))
            assert sum(map(bool, again)) == 3

    asyncio.run(run())


def test_a_minute_of_requests_is_spent_by_both_and_the_wait_is_told(redis: RedisServer) -> None:
    async def run() -> None:
        async with _gateway(redis) as one, _gateway(redis) as two:
            keys = [Key("a-minute", requests_per_minute=20) for _ in range(2)]
            sides = [(one.gate, keys[0]), (two.gate, keys[1])] * 50
            begin_s = time.monotonic()
            leases = await asyncio.gather(*(_enter(gate, key) for gate, key in sides))
            refilled = int((time.monotonic() - begin_s) / 3)
            assert 20 <= sum(map(bool, leases)) <= 20 + refilled
            with pytest.raises(ApiError, match="20 requests a minute") as refusal:
                await one.gate.enter(keys[0], 0)
            assert 1 <= int(refusal.value.headers["retry-after"]) <= 3

    asyncio.run(run())


def test_tokens_of_both_add_up_and_are_corrected_by_what_was_used(redis: RedisServer) -> None:
    async def run() -> None:
        async with _gateway(redis) as one, _gateway(redis) as two:
            keys = [Key("tokens", tokens_per_minute=6000) for _ in range(2)]
            lease = await one.gate.enter(keys[0], 4000)
            assert await _enter(two.gate, keys[1], 4000) is None
            one.gate.leave(keys[0], lease, 4000, 1000)
            assert await _enter(one.gate, keys[0], 0), "what left is counted before what comes after it"
            lease = await two.gate.enter(keys[1], 4000)
            two.gate.leave(keys[1], lease, 4000, 6000)
            assert await _enter(two.gate, keys[1], 1) is None
            assert await _enter(one.gate, keys[0], 1) is None, "more than the minute has is owed at both"

    asyncio.run(run())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_without_the_store_each_counts_by_itself_and_together_again_once_it_is_back(
    redis: RedisServer, number: signal.Signals, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        async with _gateway(redis) as one, _gateway(redis) as two:
            keys = [Key(f"away-{number}", max_in_flight=2) for _ in range(2)]
            before = await one.gate.enter(keys[0], 0)
            redis.signal(number)
            begin_s = time.monotonic()
            assert await _enter(one.gate, keys[0])
            assert await _enter(one.gate, keys[0]) is None, "by its own counts"
            assert await _enter(two.gate, keys[1])
            assert await _enter(two.gate, keys[1])
            print(f"{number.name}: four requests waited {(time.monotonic() - begin_s) * 1000:.0f} ms")
            assert time.monotonic() - begin_s < IN_TIME_S
            assert one.value("litport_limits_store_misses_total") == 2
            assert one.value("litport_limits_store_up") == 0
            if number is signal.SIGKILL:
                redis.start()
            else:
                redis.signal(signal.SIGCONT)
            await wait_until_async(lambda: one.value("litport_limits_store_up") == 1)
            await wait_until_async(lambda: two.value("litport_limits_store_up") == 1)
            assert await _enter(one.gate, keys[0]) is None, "both go on with the requests that run"
            one.gate.leave(keys[0], before, 0, None)
            assert await _enter(one.gate, keys[0]) is None, "three run"

    with caplog.at_level(logging.WARNING, "litport.gateway"):
        asyncio.run(run())
    lines = [record.getMessage() for record in caplog.records]
    away = [line for line in lines if f"redis://{redis.address} does not answer" in line]
    assert len(away) == 2 == len([line for line in lines if "answers again" in line]), lines
    assert not any(PASSWORD in line for line in lines)


def test_what_the_store_did_not_take_is_not_given_back(redis: RedisServer) -> None:
    async def run() -> None:
        async with _gateway(redis) as one, _gateway(redis) as two:
            keys = [Key("not-taken", tokens_per_minute=6000) for _ in range(2)]
            assert await _enter(two.gate, keys[1], 6000)
            redis.signal(signal.SIGSTOP)
            entry = await one.gate.enter(keys[0], 4000)
            redis.signal(signal.SIGCONT)
            await wait_until_async(lambda: one.value("litport_limits_store_up") == 1)
            one.gate.leave(keys[0], entry, 4000, 0)
            assert await _enter(one.gate, keys[0], 3000) is None, "the minute is spent by the other"

    asyncio.run(run())


def test_a_store_that_dies_is_noticed_while_nobody_asks(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        monkeypatch.setattr(store, "_RENEWAL_S", 0.2)
        async with _gateway(redis) as one:
            redis.signal(signal.SIGKILL)
            try:
                await wait_until_async(lambda: one.value("litport_limits_store_up") == 0)
            finally:
                redis.start()
            await wait_until_async(lambda: one.value("litport_limits_store_up") == 1)

    asyncio.run(run())


def test_a_key_without_limits_does_not_ask_the_store(redis: RedisServer) -> None:
    async def run() -> None:
        async with _gateway(redis) as one:
            redis.signal(signal.SIGSTOP)
            try:
                assert await one.gate.enter(Key("free"), 10) is None
            finally:
                redis.signal(signal.SIGCONT)
            assert one.value("litport_limits_store_misses_total") == 0

    asyncio.run(run())


class _Gateway:
    """A gate with its store, and the series of it."""

    def __init__(self, url: str) -> None:
        self._registry = CollectorRegistry()
        self.store = Store(url, self._registry)
        self.gate = Gate(self.store)

    def value(self, name: str) -> float | None:
        return self._registry.get_sample_value(name)


@contextlib.asynccontextmanager
async def _gateway(redis: RedisServer) -> AsyncIterator[_Gateway]:
    gateway = _Gateway(redis.url)
    async with gateway.store:
        await wait_until_async(lambda: gateway.value("litport_limits_store_up") == 1)
        yield gateway


async def _enter(gate: Gate, key: Key, tokens: int = 0) -> Entry | None:
    """A request that entered; None where it is refused."""
    try:
        return await gate.enter(key, tokens)
    except ApiError:
        return None
