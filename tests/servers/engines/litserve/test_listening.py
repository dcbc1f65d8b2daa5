"""LitServe's callbacks and loggers, on the host and on LitServe's own server."""

from pathlib import Path
from typing import Any

import pytest

from tests.servers.engines.litserve.child import STRANGERS, running
from tests.services.polling import wait_until

_LISTENS = f"{STRANGERS}/listens.py"
_EVENTS = ["before decode", "after decode", "before predict", "after predict", "before encode", "after encode"]


@pytest.mark.parametrize("serving", ["host", "litserve"])
def test_callbacks_hear_each_step_and_loggers_get_what_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serving: str
) -> None:
    notes = tmp_path / "notes"
    monkeypatch.setenv("NOTES", str(notes))

    def lines() -> list[str]:
        return notes.read_text().splitlines()

    spec: dict[str, Any] = {
        "api": f"{_LISTENS}:LoggingAPI",
        "callbacks": [f"{_LISTENS}:NotingCallback"],
        "loggers": [f"{_LISTENS}:NotingLogger", f"{_LISTENS}:CountingLogger"],
    }
    with running(tmp_path, serving=serving, **spec) as child:
        assert lines() == ["server starts", "before setup", "after setup of LoggingAPI"]
        for value in (1, "bad"):
            assert child.predict(value=value).json() == value
        wait_until(lambda: "total bad" in lines() and lines().count("after encode") == 2, 20)
        events = [line for line in lines()[3:] if line in _EVENTS]
        assert events == _EVENTS * 2
        assert [line for line in lines() if line.startswith(("value", "total"))] == [
            "value = 1",
            "total 1",
            "value = bad",
            "total bad",
        ]
        assert "a callback that fails disturbs nobody" in child.log_file.read_text()


def test_a_batch_is_announced_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    api, callbacks = f"{STRANGERS}/batches.py:BatchesAPI", [f"{_LISTENS}:NotingCallback"]
    with running(tmp_path, api=api, callbacks=callbacks, max_batch_size=2, batch_timeout=0.1) as child:
        assert child.predict(input=1).json()["output"] == 1
        wait_until(lambda: (tmp_path / "notes").read_text().splitlines()[3:] == _EVENTS, 10)


def test_what_is_logged_last_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    with running(tmp_path, api=f"{_LISTENS}:LoggingAPI", loggers=[f"{_LISTENS}:NotingLogger"]) as child:
        for value in range(20):
            child.predict(value=value)
        child.process.terminate()
        assert child.process.wait(10) == 0
    assert (tmp_path / "notes").read_text().splitlines() == [f"value = {value}" for value in range(20)]
