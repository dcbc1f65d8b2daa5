"""The number of a model's replicas changes while requests go on."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from unittest import mock

import pytest

from litport import main
from servers.models.instance import State
from tests.servers.models.conftest import CHAT, ask, command, serving, traffic
from tests.services.front_door import Door
from tests.services.polling import wait_until


def test_a_model_gets_more_replicas_and_fewer(door: Door, capsys: pytest.CaptureFixture[str]) -> None:
    model = serving(door)
    with traffic(door) as connections:
        command(door, "scale", "one", "2")
        assert len(model.instances) == model.settings.replicas == 2
        command(door, "scale", "one", "1")
    assert {status for answers in connections for status, _ in answers} == {200}
    assert len(model.instances) == 1
    assert main(["scale", "one", "0", "--port", str(door.port)]) == 2
    assert "replicas: expected a whole number from 1 to 64" in capsys.readouterr().err


def test_a_replica_that_is_added_takes_the_number_that_is_free(door: Door) -> None:
    model = serving(door)
    command(door, "scale", "one", "2")
    first, second = model.instances
    first.state = State.FAILED  # as if it had failed for good, so that the other one is kept
    command(door, "scale", "one", "1")
    assert model.instances == (second,)
    command(door, "scale", "one", "2")
    assert sorted(instance.log_file for instance in model.instances) == sorted([first.log_file, second.log_file])
    command(door, "scale", "one", "1")


def test_a_replica_that_comes_back_takes_the_requests_that_wait(door: Door) -> None:
    command(door, "scale", "one", "2")
    model = serving(door)
    first, second = model.instances
    assert first.card is not None
    assert second.group_id is not None
    one_at_a_time = mock.patch.object(first, "card", replace(first.card, max_running=1))
    with one_at_a_time, ThreadPoolExecutor() as pool:
        os.killpg(second.group_id, signal.SIGKILL)
        wait_until(lambda: model.max_running == 1)
        long = pool.submit(door.client.post, CHAT, json={"model": "one", "wait_s": 4})
        wait_until(lambda: model.admission.running)
        assert ask(door).status_code == 200
        assert not long.done()
        assert long.result().status_code == 200
    command(door, "scale", "one", "1")
