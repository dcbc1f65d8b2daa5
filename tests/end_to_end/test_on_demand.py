"""More models than fit, with real engines: they wake, make room and come back, also while processes are killed."""

import asyncio
import contextlib
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import REPOSITORY, Platform, litport, serving
from tests.services.polling import wait_until

HOLDS: dict[str, Any] = {
    "engine": "litserve",
    "api": f"{REPOSITORY}/tests/services/strangers/holds.py:HoldsAPI",
    "load": "on_demand",
    "min_resident_s": 2.0,
}
NAMES = ("one", "two", "three")
SOAK_S = float(os.environ.get("ON_DEMAND_S", "15"))
KILL_EVERY_S = float(os.environ.get("ON_DEMAND_KILL_S", "4"))
FIT = 2
HELD_BYTES = 100 * 2**20  # by a worker of HoldsAPI


@pytest.mark.long
def test_fifty_clients_wake_a_litapi_once_and_ps_tells(tmp_path: Path) -> None:
    with _serving(tmp_path, {"one": HOLDS}) as platform:

        async def ask_all() -> list[httpx.Response]:
            async with httpx.AsyncClient(base_url=platform.url, timeout=60) as client:
                return list(await asyncio.gather(*(client.post("/predict/one", json={}) for _ in range(50))))

        assert {answer.status_code for answer in asyncio.run(ask_all())} == {200}
        assert _loads(platform) == 1
        lines = litport("ps", "--url", platform.url).stdout.splitlines()
        assert lines[1].split()[:2] == ["one", "ready"]
        assert lines[1].endswith("makes room next")
        os.kill(asyncio.run(ask_all())[0].json()["pid"], signal.SIGKILL)
        assert litport("unload", "one", "--port", platform.url.rpartition(":")[2]).returncode == 0
        residence: Any = platform.status()["one"]["residence"]
        assert residence["measured_bytes"] > HELD_BYTES, "its size is that with its worker"
        answer = platform.http.post("/predict/one", json={}, timeout=60)
        residence = platform.status()["one"]["residence"]
        answered_s = answer.elapsed.total_seconds()
        print(f"start {residence['load_s']} s, answered after {answered_s:.2f} s")
        assert answered_s < residence["load_s"] + 0.2


@pytest.mark.long
def test_three_models_of_which_two_fit_are_all_served_also_while_processes_are_killed(tmp_path: Path) -> None:
    budget = str(_size_bytes(tmp_path) * (2 * FIT + 1) // 2)
    with _serving(tmp_path, dict.fromkeys(NAMES, HOLDS), "--server.memory_budget_bytes", budget) as platform:
        _measure_all(platform)
        for kills in (False, True):
            before = _loads(platform)
            outcomes, residents, killed = _soak(platform, kills)
            loads = _loads(platform) - before
            print(f"kills {killed}, loads {loads}, outcomes {dict(outcomes)}")
            assert max(residents) == FIT, "never more than fit, and all that fit"
            assert outcomes[200] > SOAK_S, "there was traffic"
            assert outcomes.keys() <= {200, "stated wait"}
            assert outcomes["stated wait"] == 0 or kills
            assert loads <= FIT * SOAK_S / HOLDS["min_resident_s"] + FIT + killed
        for name in NAMES:
            wait_until(partial(_answers, platform, name))


@contextlib.contextmanager
def _serving(folder: Path, models: Any, *arguments: str) -> Iterator[Platform]:
    recipe = folder / "recipe.yaml"
    recipe.write_text(json.dumps({"models": models}))  # JSON is YAML
    arguments = arguments if "--server.cache_dir" in arguments else (*arguments, "--server.cache_dir", str(folder))
    with serving(folder, str(recipe), *arguments, timeout_s=30) as platform:
        yield platform


def _size_bytes(folder: Path) -> int:
    """What one of the models takes once it is loaded."""
    with _serving(folder, {"one": {**HOLDS, "idle_unload_s": 0.1, "min_resident_s": 0}}) as platform:
        platform.http.post("/predict/one", json={}, timeout=120).raise_for_status()
        residence: Any = platform.wait_for("one", state="unloaded")["residence"]
        return int(residence["measured_bytes"])


def _answers(platform: Platform, name: str) -> bool:
    return platform.http.post(f"/predict/{name}", json={}).status_code == 200


def _measure_all(platform: Platform) -> None:
    """Load each of the models once, so that the size of each is known."""
    for name in NAMES:
        platform.http.post(f"/predict/{name}", json={}, timeout=60).raise_for_status()


def _loads(platform: Platform) -> int:
    residences: list[Any] = [model["residence"] for model in platform.status().values()]
    return sum(residence["loads"] for residence in residences)


def _soak(platform: Platform, kills: bool) -> tuple[Counter[int | str], list[int], int]:
    """Ask models at random for a while; the outcomes, how many had processes at each look, and the number of kills."""
    end_s = time.monotonic() + SOAK_S
    outcomes: Counter[int | str] = Counter()
    residents, killed = [], 0

    def ask(seed: int) -> None:
        dice = random.Random(seed)
        with httpx.Client(base_url=platform.url, timeout=60) as client:
            while time.monotonic() < end_s:
                body = {"wait_s": dice.choice((0, 0, 0.05, 0.3))}
                outcomes[_outcome(client.post(f"/predict/{dice.choice(NAMES)}", json=body))] += 1
                time.sleep(dice.random() / 10)

    with ThreadPoolExecutor() as pool:
        users = [pool.submit(ask, seed) for seed in range(6)]
        next_kill_s = time.monotonic() + KILL_EVERY_S / 2
        while time.monotonic() < end_s:
            status = platform.status().values()
            groups = [int(str(model["group_id"])) for model in status if model["group_id"] is not None]
            residents.append(len(groups))
            if kills and groups and time.monotonic() > next_kill_s:
                next_kill_s += KILL_EVERY_S
                with contextlib.suppress(ProcessLookupError):
                    os.kill(random.choice(groups), signal.SIGKILL)  # not for secrets
                    killed += 1
            time.sleep(0.2)
        for user in users:
            user.result()
    return outcomes, residents, killed


def _outcome(answer: httpx.Response) -> int | str:
    """The status, or for a refusal that says when to try again just that."""
    return "stated wait" if answer.status_code in (429, 503) and "retry-after" in answer.headers else answer.status_code
