"""Several instances of one model: they share its requests, and the death of one costs what it had in hand."""

import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from servers.models.instance import State
from servers.models.model import Model
from tests.services.front_door import Door, open_door
from tests.services.polling import wait_until
from tests.services.tiny_engine import TinyEngine

CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """One model with two replicas."""
    with open_door(tmp_path_factory.mktemp("door"), TinyEngine("one"), model={"replicas": 2}) as door:
        _wait_for_both(door.supervisor.models["one"])
        yield door


def _wait_for_both(model: Model) -> None:
    wait_until(lambda: all(instance.state is State.READY for instance in model.instances))


def _ask(door: Door, answers: list[httpx.Response], **fields: Any) -> threading.Thread:
    def ask() -> None:
        answers.append(door.client.post(CHAT, json={"model": "one", **fields}))

    thread = threading.Thread(target=ask)
    thread.start()
    return thread


def test_requests_go_to_the_one_with_the_fewest(door: Door) -> None:
    model = door.supervisor.models["one"]
    answers: list[httpx.Response] = []
    threads = [_ask(door, answers, wait_s=0.5) for _ in range(6)]
    for thread in threads:
        thread.join()
    groups = [instance.group_id for instance in model.instances]
    assert len(set(groups)) == 2
    assert Counter(answer.json()["pid"] for answer in answers) == {groups[0]: 3, groups[1]: 3}
    assert model.max_running == 32


def test_status_and_metrics_tell_them_apart(door: Door) -> None:
    [status] = door.client.get("/status").json()["models"]
    groups = [instance.group_id for instance in door.supervisor.models["one"].instances]
    assert [instance["group_id"] for instance in status["instances"]] == groups
    assert len({instance["socket"] for instance in status["instances"]}) == 2
    assert len({instance["log_file"] for instance in status["instances"]}) == 2
    assert status["process_count"] == 4, "a server and its worker for each"


@pytest.mark.long
def test_the_death_of_one_costs_what_it_had_in_hand(door: Door) -> None:
    model = door.supervisor.models["one"]
    answers: list[httpx.Response] = []
    threads = [_ask(door, answers, wait_s=1) for _ in range(4)]
    wait_until(lambda: [instance.in_flight for instance in model.instances] == [2, 2])
    victim = model.instances[0]
    assert victim.group_id is not None
    os.kill(victim.group_id, signal.SIGKILL)
    while victim.state is State.READY or len(answers) < 20:
        answers.append(door.client.post(CHAT, json={"model": "one"}))
    assert door.client.get("/ready").status_code == 200
    for thread in threads:
        thread.join()
    # Two were in hand, and perhaps the one that was on its way at the moment of the kill.
    assert Counter(answer.status_code for answer in answers)[503] in (2, 3)
    _wait_for_both(model)
