"""Two platforms behind one load balancer: the limits of a key hold for both together, by a real Redis between them."""

import concurrent.futures
import contextlib
import itertools
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest

from servers.gateway.limits.scripts import LEASE_S
from tests.conftest import REPOSITORY, Platform, serving
from tests.servers.gateway.keyrings import bearer, keys_file
from tests.services.polling import wait_until
from tests.services.redis_server import PASSWORD, RedisServer, redis_server

pytestmark = pytest.mark.long

API = f"{REPOSITORY / 'tests/services/strangers/sleeps.py'}:SleepsAPI"
FEW, RATE = "sk-few-0123456789abc", "sk-rate-0123456789ab"
KEYS = f"few: {{key: {FEW}, max_in_flight: 4}}\nrate: {{key: {RATE}, requests_per_minute: 30}}\n"
SLEEP_S = 1.5  # longer than a hundred requests take to be sent
# A request that meets a store that has just died waits a tenth of a second; the rest is for tests beside this one.
IN_TIME_S = 2


@dataclass
class Pair:
    """Both platforms, and their store."""

    platforms: list[Platform]
    redis: RedisServer

    def ask(self, key: str, count: int, sleep_s: float, users: int = 20) -> Counter[int]:
        """So many requests in turn to the one and the other; how many had which status."""
        with concurrent.futures.ThreadPoolExecutor(users) as pool:
            platforms = itertools.islice(itertools.cycle(self.platforms), count)
            return Counter(pool.map(lambda platform: _ask(platform, key, sleep_s), platforms))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("pair")
    keys = keys_file(folder, KEYS)
    with redis_server(folder) as redis, contextlib.ExitStack() as stack:
        environ = {"LITPORT_LIMITS__REDIS_URL": redis.url}
        platforms = []
        for name in ("one", "two"):
            place = folder / name
            place.mkdir()
            settings = ["--auth.keys_file", str(keys), "--server.cache_dir", str(place)]
            platforms.append(stack.enter_context(serving(place, API, *settings, environ=environ)))
        yield Pair(platforms, redis)
        assert not any(PASSWORD in platform.log.read_text() for platform in platforms)


def test_a_hundred_requests_to_both_are_within_the_limits_of_one_key(pair: Pair) -> None:
    assert pair.ask(FEW, 100, SLEEP_S, users=100) == {200: 4, 429: 96}
    begin_s = time.monotonic()
    outcomes = pair.ask(RATE, 100, 0)
    assert outcomes.keys() == {200, 429}
    assert 30 <= outcomes[200] <= 30 + (time.monotonic() - begin_s) / 2


def test_without_the_store_requests_go_on_and_with_it_they_are_counted_together_again(pair: Pair) -> None:
    pair.redis.signal(signal.SIGKILL)
    begin_s = time.monotonic()
    assert pair.ask(FEW, 8, 0, users=2) == {200: 8}
    print(f"eight requests took {time.monotonic() - begin_s:.2f} s as the store died")
    assert time.monotonic() - begin_s < IN_TIME_S
    pair.redis.start()
    for platform in pair.platforms:
        wait_until(lambda: "answers again" in platform.log.read_text(), problem=platform.log.read_text)  # noqa: B023
    assert pair.ask(FEW, 40, SLEEP_S, users=40) == {200: 4, 429: 36}


def test_what_a_killed_gateway_had_in_hand_is_free_for_the_other_soon(pair: Pair) -> None:
    one, two = pair.platforms
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        stuck = [pool.submit(_ask, one, FEW, 60) for _ in range(4)]
        wait_until(lambda: _in_flight(one) == 4, problem=lambda: _in_flight(one))
        one.process.kill()
        begin_s = time.monotonic()
        assert [request.result() for request in stuck] == [0] * 4
        assert _ask(two, FEW, 0) == 429
        wait_until(lambda: _ask(two, FEW, 0) == 200, LEASE_S + 10, every_s=0.2)
        print(f"free {time.monotonic() - begin_s:.1f} s after the kill")


def _in_flight(platform: Platform) -> int:
    (model,) = platform.http.get("/status", headers=bearer(FEW)).json()["models"]
    return int(model["running"] + model["waiting"])


def _ask(platform: Platform, key: str, sleep_s: float) -> int:
    """The status of a request that sleeps so long; 0 where the connection broke."""
    try:
        body = {"input": sleep_s}
        return platform.http.post("/predict/sleeps", json=body, headers=bearer(key), timeout=60).status_code
    except httpx.TransportError:
        return 0
