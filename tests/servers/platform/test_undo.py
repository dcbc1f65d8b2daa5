"""A change of a running platform that fails part way is undone."""

import itertools
import re
from collections.abc import Sequence
from typing import Any
from unittest import mock

import pytest

from servers.models.instance import State
from servers.platform.steps import Steps
from tests.servers.platform.conftest import ECHO, TWO, Served

BROKEN = {**ECHO, "init": {"argv": ["-c", "raise ValueError('no such weights')"]}}


def test_where_a_required_model_does_not_start_all_is_undone(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    before = served.pid("one")
    assert served.apply({"models": {"one": {**ECHO, "max_waiting": 8}, "bad": BROKEN}}) == 2
    error = capsys.readouterr().err
    assert "bad could not be started: " in error
    assert "no such weights" in error
    assert "what had been done is undone" in error
    models = served.door.supervisor.models
    assert {name: model.state for name, model in models.items()} == dict.fromkeys(TWO, State.READY)
    assert (served.pid("one"), models["one"].max_waiting) == (before, 256)
    assert not served.door.platform.failed
    optional = {**BROKEN, "required": False}
    assert served.apply({"models": {**TWO, "bad": optional}, "limits": {"max_body_bytes": 10**6}}) == 1
    streams = capsys.readouterr()
    assert streams.out.endswith("done: set limits.max_body_bytes: 67108864 -> 1000000\n"), "the rest is done"
    assert re.fullmatch(r"bad could not be started: .*no such weights.*; the rest is done\n", streams.err)
    assert served.apply({"models": {**TWO, "bad": optional, "worse": BROKEN}}) == 2
    assert "what had been done is undone" in capsys.readouterr().err, "whatever failed before"


def test_what_cannot_be_undone_is_told(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    script = served.folder / "tiny"
    server = "tests.services.tiny_server"
    script.write_text(
        f"import os, runpy, sys\nsys.path.append(os.getcwd())\nrunpy.run_module('{server}', None, '__main__')"
    )
    optional = {**ECHO, "required": False}
    assert served.apply({"models": {"one": ECHO, "two": {**optional, "init": {"argv": [str(script)]}}}}) == 0
    script.unlink()
    assert served.apply({"models": {"one": ECHO, "two": optional, "bad": BROKEN}}) == 2
    assert (
        "; and not all of it could be undone: two could not be started (two goes on as it was)"
        in capsys.readouterr().err
    )


def test_where_a_step_of_any_kind_fails_all_is_undone(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    def states() -> dict[str, tuple[Any, State]]:
        models = served.door.supervisor.models.items()
        return {name: (model.settings, model.state) for name, model in models}

    def failing(step: str, calls: Sequence[int], does_it: bool) -> Any:
        """`step` with a fault in its calls of these numbers, after or before it does anything."""
        original, numbers = getattr(Steps, step), itertools.count()

        async def change(steps: Steps, *arguments: Any) -> None:
            fails = next(numbers) in calls
            if does_it or not fails:
                await original(steps, *arguments)
            if fails:
                raise RuntimeError("no space left")

        return mock.patch.object(Steps, step, change)

    def model(number: int, **settings: Any) -> dict[str, Any]:
        return {**ECHO, "load": "on_demand", "env": {"A": str(number)}, **settings}

    assert served.apply({"models": {"a": model(1), "b": model(2), "c": model(3), "d": model(4)}}) == 0
    before = states()
    recipe = {"models": {"a": model(5), "b": model(2, max_waiting=8), "c2": model(3), "new": model(6)}}
    for step in ("adopt", "remove", "replace", "rename", "add"):
        with failing(step, [0], does_it=True):
            assert served.apply(recipe) == 2
        error = capsys.readouterr().err
        assert "the platform failed at it (RuntimeError: no space left); what had been done is undone" in error
        assert states() == before
    with failing("add", [0], does_it=False), failing("adopt", [1], does_it=False):
        assert served.apply(recipe) == 2
    assert "and it could not be undone: no space left" in capsys.readouterr().err
    changed = {name for name, state in states().items() if state != before[name]}
    assert (states().keys(), changed) == (before.keys(), {"b"}), "all but the step that could not"
    assert served.apply(recipe) == 0
    assert served.ask("a").status_code == 200
