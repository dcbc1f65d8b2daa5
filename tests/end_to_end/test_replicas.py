"""Two replicas of a LitAPI under load: one is killed, and nobody notices but those whose request it had."""

import json
import os
import signal
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import REPOSITORY, Platform, serving
from tests.services.polling import wait_until

USERS = 8


@pytest.mark.long
def test_a_killed_replica_fails_what_it_had_in_hand_and_nothing_else(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    api = f"{REPOSITORY / 'tests/services/strangers/sleeps.py'}:SleepsAPI"
    recipe.write_text(json.dumps({"models": {"sleeps": {"engine": "litserve", "api": api, "replicas": 2}}}))
    with serving(tmp_path, str(recipe), "--server.cache_dir", str(tmp_path)) as platform:
        wait_until(lambda: _states(platform) == ["ready", "ready"])
        outcomes: Counter[int] = Counter()
        done = threading.Event()
        users = [threading.Thread(target=_ask, args=(platform, outcomes, done)) for _ in range(USERS)]
        for user in users:
            user.start()
        try:
            wait_until(lambda: outcomes[200] >= 5 * USERS)
            for number in (0, 1):
                group_id = _instances(platform)[number]["group_id"]
                os.kill(group_id, signal.SIGKILL)
                wait_until(lambda: "starting" in _states(platform), every_s=0.005)
                assert platform.http.get("/ready").status_code == 200
                wait_until(lambda: _states(platform) == ["ready", "ready"], 60)
                before = outcomes[200]
                wait_until(lambda before=before: outcomes[200] >= before + 5 * USERS)  # type: ignore[misc] # its own
        finally:
            done.set()
            for user in users:
                user.join()
        # A worker has one request in hand; those that wait for it go to the other replica.
        assert outcomes.keys() <= {200, 503}
        assert outcomes[503] <= 2
        assert all(instance["restarts"] == 1 for instance in _instances(platform))


def _ask(platform: Platform, outcomes: Counter[int], done: threading.Event) -> None:
    with httpx.Client(base_url=platform.url, timeout=30) as client:
        while not done.is_set():
            outcomes[client.post("/predict/sleeps", json={"input": 0.02}).status_code] += 1


def _instances(platform: Platform) -> list[dict[str, Any]]:
    instances: Any = platform.status()["sleeps"]["instances"]
    return list(instances)


def _states(platform: Platform) -> list[str]:
    return [instance["state"] for instance in _instances(platform)]
