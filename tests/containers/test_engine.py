"""Where no engine can be had, the tests of the images say so, and why."""

import pytest

from tests.containers import engine


def test_a_machine_without_an_engine_is_told_apart_from_one_that_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_SEARCHED", [])
    with pytest.raises(engine.NoEngineError, match="no docker is installed; no dockerd is installed"), engine.running():
        pass
