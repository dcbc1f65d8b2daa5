"""Which instances are started again, and how long somebody waits for one elsewhere."""

from types import SimpleNamespace
from typing import Any

import pytest

from servers.models.instance import State
from servers.models.restart import absence, outcome
from servers.models.start import StartError

PROBLEM = StartError("nobody listens")


@pytest.mark.parametrize(("on_demand", "elapsed_s", "ends"), [(True, 9, False), (True, 11, True), (False, 11, False)])
def test_a_load_from_a_server_that_is_away_is_given_up_soon(on_demand: bool, elapsed_s: float, ends: bool) -> None:
    """That of a request, a command, a change or a new version; a start with the platform goes on."""
    model = _model(on_demand, {})
    problem = outcome(model, model.instances[0], PROBLEM, has_been_ready=False, elapsed_s=elapsed_s)
    assert (problem is not None) is ends


@pytest.mark.parametrize("another", [{"failures": 0}, {"state": State.READY}], ids=["is asked", "is ready"])
def test_a_server_that_is_away_is_asked_on_where_another_one_may_answer(another: dict[str, Any]) -> None:
    model = _model(True, {}, another)
    assert outcome(model, model.instances[0], PROBLEM, has_been_ready=False, elapsed_s=11) is None
    model.residence.is_beside = True
    assert outcome(model, model.instances[0], PROBLEM, has_been_ready=False, elapsed_s=11), "all of a new version"


def test_whoever_waits_for_a_server_that_is_asked_on_is_told_after_the_same_time() -> None:
    assert absence(_model(False, {}), PROBLEM, 9) is None
    assert "asked again until it answers" in str(absence(_model(False, {}), PROBLEM, 11))
    assert absence(_model(False, {}, {"failures": 0}), PROBLEM, 11) is None, "one of two may answer yet"
    assert absence(_model(False, {"address": None}), PROBLEM, 11) is None, "a process here restarts"


def _model(on_demand: bool, *instances: dict[str, Any]) -> Any:
    settings = SimpleNamespace(required=on_demand, start_timeout_s=900, instances=[])
    away = {"address": "http://127.0.0.1:9", "failures": 4, "state": State.STARTING}
    places = [SimpleNamespace(**{**away, **fields}) for fields in instances]
    residence = SimpleNamespace(on_demand=on_demand, is_beside=False)
    return SimpleNamespace(settings=settings, residence=residence, instances=places)
