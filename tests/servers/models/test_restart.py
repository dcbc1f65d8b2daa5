"""Which instances are started again."""

from types import SimpleNamespace
from typing import Any

import pytest

from servers.models.restart import outcome
from servers.models.start import StartError


@pytest.mark.parametrize(("is_beside", "elapsed_s", "ends"), [(True, 9, False), (True, 11, True), (False, 11, False)])
def test_a_new_version_on_a_server_that_is_away_is_given_up_soon(is_beside: bool, elapsed_s: float, ends: bool) -> None:
    settings = SimpleNamespace(required=False, start_timeout_s=900, instances=[])
    model: Any = SimpleNamespace(settings=settings, residence=SimpleNamespace(is_beside=is_beside, on_demand=True))
    instance: Any = SimpleNamespace(address="http://127.0.0.1:9", failures=4)
    problem = outcome(model, instance, StartError("nobody listens"), has_been_ready=False, elapsed_s=elapsed_s)
    assert (problem is not None) is ends
