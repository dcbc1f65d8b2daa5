"""The number of replicas on a real Ray cluster follows the requests at all gateways, and no request is lost by it."""

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from tests.cluster.conftest import Ray, gateway
from tests.cluster.load import Load
from tests.conftest import REPOSITORY, Platform
from tests.services.polling import wait_until

pytestmark = pytest.mark.long

RANGE = {"min": 1, "max": 2, "target_running": 4, "down_after_s": 2}
MODEL: dict[str, Any] = {
    "engine": "litserve",
    "api": f"{REPOSITORY / 'tests/services/strangers/sleeps.py'}:SleepsAPI",
    "replicas": RANGE,
    "resources": {"cpus": 0.1},
    "max_running": 2,  # at each gateway: more wait, and what waits counts
}
UP_S = 10
USERS = 6
BURST_USERS = 40


def test_replicas_follow_the_load_of_all_gateways_and_no_request_fails(ray: Ray) -> None:
    recipe = ray.recipe({"scaled": MODEL}, "scaled")
    other_recipe = ray.recipe({"scaled": {**MODEL, "replicas": {**RANGE, "target_running": 5}}}, "other")
    number_recipe = ray.recipe({"scaled": {**MODEL, "replicas": 1}}, "number")
    deployed = ray.litport("deploy", str(recipe))
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    assert "1 of 1 replicas run" in deployed.stdout
    loads: list[Load] = []
    try:
        with gateway(ray, recipe) as one, gateway(ray, recipe) as two:
            with _users([one.url, two.url], USERS, loads):  # each gateway alone has less than a replica takes
                up_s = _wait_for(one, 2)
                wait_until(lambda: [instance["running"] for instance in _instances(one)] == [1, 1])
                assert " 2/2 " in ray.litport("ps", "--url", one.url).stdout
                pids = _pids(ray)
                again = ray.litport("deploy", str(other_recipe))
                assert again.returncode == 0, again.stdout + again.stderr
                assert _pids(ray) == pids, "another range leaves the processes as they are"
            with _users([one.url], 1, loads):
                down_s = _wait_for(one, 1)
            with _users([one.url], BURST_USERS, loads):
                burst_s = _wait_for(one, 2)
            pids = _pids(ray)
            with _users([one.url, two.url], USERS, loads):
                assert ray.litport("deploy", str(number_recipe)).returncode == 0
                _wait_for(one, 1)
                assert not pids & _pids(ray), "a number in the place of a range replaces the processes"
            assert "1 of 1 replicas run" in ray.litport("status", "--ray", ray.dashboard).stdout
    finally:
        assert ray.litport("undeploy", str(recipe)).returncode == 0
    count, failures = sum(len(load.outcomes) for load in loads), sum(load.failures for load in loads)
    print(f"up in {up_s:.1f} and {burst_s:.1f} s, down in {down_s:.1f} s; {failures} of {count} requests failed")
    assert failures == 0
    assert max(up_s, burst_s) < 2 * UP_S


@contextlib.contextmanager
def _users(urls: Sequence[str], count: int, loads: list[Load]) -> Iterator[None]:
    """So many users at these gateways until the block ends; what became of their requests is one of the loads."""
    load = Load(urls, "scaled", count)
    loads.append(load)
    users = [threading.Thread(target=load.ask, args=(number,)) for number in range(count)]
    for user in users:
        user.start()
    try:
        yield
    finally:
        load.done.set()
        for user in users:
            user.join(60)
        assert not any(user.is_alive() for user in users), "a request hangs"


def _wait_for(platform: Platform, count: int) -> float:
    """Wait until so many replicas serve, and no other is there; how long that took, in seconds."""
    begin_s = time.monotonic()
    states = ["ready"] * count
    wait_until(
        lambda: [instance["state"] for instance in _instances(platform)] == states, 60, problem=platform.log.read_text
    )
    return time.monotonic() - begin_s


def _instances(platform: Platform) -> list[Any]:
    instances: Any = platform.status()["scaled"]["instances"]
    return sorted(instances, key=lambda instance: int(instance["running"]))


def _pids(ray: Ray) -> set[int]:
    return {replica["pid"] for replica in ray.applications()["litport-scaled"]["deployments"]["model"]["replicas"]}
