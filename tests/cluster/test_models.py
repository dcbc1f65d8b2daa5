"""Models on a real Ray cluster of one node behind `litport gateway`: from the deployment to the last process."""

import os
import re
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.benchmarks.documents import read_document
from tests.cluster.conftest import CPUS, HOST, Ray, gateway
from tests.conftest import REPOSITORY, Platform
from tests.services.polling import wait_until

pytestmark = pytest.mark.long

STRANGERS = REPOSITORY / "tests/services/strangers"
SMALL = {"resources": {"cpus": 0.1}}
MODELS: dict[str, Any] = {
    "sleeps": {"engine": "litserve", "api": f"{STRANGERS / 'sleeps.py'}:SleepsAPI", "replicas": 2, **SMALL},
}
USERS = 8


@pytest.fixture(scope="module")
def served(ray: Ray) -> Iterator[Platform]:
    """The gateway of a deployed recipe, with two replicas of one model; nothing of it is left at the end."""
    recipe = ray.recipe(MODELS, "models")
    deployed = ray.litport("deploy", str(recipe))
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    assert f"sleeps: running, 2 of 2 replicas run ({HOST}, {HOST})" in deployed.stdout
    processes = _processes(ray)
    try:
        with gateway(ray, recipe) as platform:
            wait_until(lambda: _states(platform) == ["ready", "ready"], problem=platform.log.read_text)
            yield platform
    finally:
        processes |= _processes(ray)
        undeployed = ray.litport("undeploy", str(recipe))
        assert undeployed.returncode == 0, undeployed.stderr
        assert ray.applications() == {}
        wait_until(lambda: not (processes & _processes(ray)), problem=lambda: _processes(ray))


def test_a_replica_that_gets_a_signal_fails_what_it_had_in_hand_and_is_replaced(ray: Ray, served: Platform) -> None:
    outcomes: Counter[int] = Counter()
    done = threading.Event()
    users = [threading.Thread(target=_ask, args=(served, outcomes, done)) for _ in range(USERS)]
    before = _processes(ray)
    for user in users:
        user.start()
    try:
        wait_until(lambda: outcomes[200] >= 5 * USERS)
        tree = _first_replica(ray)
        os.kill(tree[0], signal.SIGTERM)
        wait_until(lambda: not any(psutil.pid_exists(pid) for pid in tree), problem=lambda: tree)
        wait_until(lambda: _states(served) != ["ready", "ready"] or _processes(ray) != before, every_s=0.005)
        wait_until(lambda: _states(served) == ["ready", "ready"], 60, problem=served.log.read_text)
        reached = outcomes[200]
        wait_until(lambda: outcomes[200] >= reached + 5 * USERS)
    finally:
        done.set()
        for user in users:
            user.join()
    print(f"{outcomes[503]} of {outcomes.total()} requests failed")
    assert outcomes.keys() <= {200, 503}
    assert outcomes[503] <= USERS, "those that it had"


def test_a_model_that_cannot_start_and_one_that_fits_nowhere_are_told_with_the_cause(ray: Ray) -> None:
    broken = {"engine": "litserve", "api": f"{STRANGERS / 'broken.py'}:BrokenAPI", **SMALL}
    big = {"engine": "litserve", "api": "echo", "resources": {"cpus": 64, "gpus": 1}}
    recipe = ray.recipe({"broken": broken, "big": big}, "broken")
    result = ray.litport("deploy", str(recipe), "--server.drain_timeout_s", "0", timeout_s=90)
    assert result.returncode == 1
    (cause,) = re.findall(r"^broken: (models\.broken: .*)$", result.stdout, re.MULTILINE)
    assert cause in ray.applications()["litport-broken"]["deployments"]["model"]["message"]
    assert "each needs 64 CPU, 1 GPU, and there are free" in result.stdout
    assert f"of {CPUS} CPU, 0 of 0 GPU on {HOST}" in result.stdout
    assert ray.litport("undeploy", str(recipe)).returncode == 0, "at the end of the time for a drain"


def test_the_ladder_says_what_ray_costs_and_leaves_nothing_there(ray: Ray, served: Platform, tmp_path: Path) -> None:
    model = {**MODELS["sleeps"], "replicas": 1, "example": {"input": 0.01}}
    recipe = ray.recipe({"other": model}, "bench")
    options = {
        "rungs": "[litport, ray]",
        "passes": "1",
        "percentiles": "[50]",
        "load.users": "4",
        "validity.max_drift": "1",  # of a second or two, one hiccup of the machine is much
        "validity.max_lag_s": "0.5",
    }
    words = [word for name, value in options.items() for word in (f"--bench.{name}", value)]
    done = ray.litport("bench", "run", str(recipe), "--out", str(tmp_path), *words)
    assert done.returncode == 0, done.stdout + done.stderr
    here, there = read_document(tmp_path)["rungs"]
    assert (here["machines"], there["machines"]) == (None, 1)
    assert there["parity"]["holds"]
    assert "front door" in [row["name"] for row in there["time"]["rows"]]
    assert "ray, on one machine: throughput " in done.stdout
    assert ray.applications().keys() == {"litport-sleeps"}


def _ask(platform: Platform, outcomes: Counter[int], done: threading.Event) -> None:
    with httpx.Client(base_url=platform.url, timeout=60) as client:
        while not done.is_set():
            outcomes[client.post("/predict/sleeps", json={"input": 0.02}).status_code] += 1


def _states(platform: Platform) -> list[str]:
    instances: Any = platform.status()["sleeps"]["instances"]
    return [instance["state"] for instance in instances]


def _processes(ray: Ray) -> set[int]:
    """Replicas of Ray Serve, and what Litport has started for them."""
    lines = {process.pid: " ".join(process.info["cmdline"] or []) for process in ray.processes()}
    return {pid for pid, line in lines.items() if "ServeReplica" in line or " servers." in line}


def _first_replica(ray: Ray) -> list[int]:
    """The process of the first replica of `sleeps`, and those that must end with it."""
    replica = ray.applications()["litport-sleeps"]["deployments"]["model"]["replicas"][0]
    process = psutil.Process(replica["pid"])
    return [process.pid, *(child.pid for child in process.children(recursive=True))]
