"""The number of a model's replicas changes while requests go on."""

import pytest

from litport import main
from servers.models.instance import State
from tests.servers.models.conftest import command, serving, traffic
from tests.services.front_door import Door


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
