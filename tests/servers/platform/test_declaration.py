"""A running platform is brought to what a recipe says: what changes, what stays, and that nothing fails meanwhile."""

import itertools
import json
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import httpx
import pytest

from configs.loading import LoadedSettings
from configs.settings import LitServeModel
from litport import main
from servers.engines import registry
from servers.engines.kind import EngineKind, Site
from servers.models.instance import State
from servers.platform import targets
from servers.platform.steps import Steps
from tests.services.front_door import Door, open_door
from tests.services.polling import wait_until
from tests.services.tiny_engine import TinyEngine

ECHO: dict[str, Any] = {"engine": "litserve", "api": "echo"}
TWO = {"one": ECHO, "two": ECHO}
BROKEN = {**ECHO, "init": {"argv": ["-c", "raise ValueError('no such weights')"]}}
KEY = "k" * 20


class Served(NamedTuple):
    """A platform over tiny servers, and the folder of its recipes."""

    door: Door
    folder: Path

    def apply(self, recipe: Mapping[str, Any] | str, *options: str) -> int:
        """Apply a recipe by the command; its exit status."""
        file = self.folder / "next.yaml"
        file.write_text(recipe if isinstance(recipe, str) else json.dumps(recipe))
        return main(["apply", str(file), "--port", str(self.door.port), "--yes", *options])

    def ask(self, name: str, **body: Any) -> httpx.Response:
        """The answer of a model."""
        return self.door.client.post("/v1/chat/completions", json={"model": name, **body})

    def pid(self, name: str) -> int:
        """The process that answers for a model."""
        answer: dict[str, int] = self.ask(name).raise_for_status().json()
        return answer["pid"]

    def audited(self) -> list[dict[str, Any]]:
        """The changes in the audit log."""
        lines = map(json.loads, (self.folder / "audit.jsonl").read_text().splitlines())
        return [line for line in lines if "change" in line]


def serve(folder: Path) -> Iterator[Served]:
    audit_file = str(folder / "audit.jsonl")
    (folder / "recipe.yaml").write_text(json.dumps({"models": TWO}))
    sections = {"audit_file": audit_file, "sample_interval_s": "null", "metrics_port": "9464"}
    overrides = [f"--telemetry.{name}={value}" for name, value in sections.items()]

    def read(recipes: Sequence[Path]) -> LoadedSettings:
        files = [str(path) for path in recipes] or [str(folder / "recipe.yaml")]
        return targets.load(files, [*overrides, f"--server.cache_dir={folder}"])

    def make(name: str, settings: LitServeModel, _: Site) -> TinyEngine:
        argv: Any = settings.init.get("argv", ["-m", "tests.services.tiny_server"])
        return TinyEngine(name, argv=argv)

    kind = EngineKind(LitServeModel, make, lambda settings: () if "argv" in settings.init else check(settings))
    check = registry._KINDS["litserve"].check_model
    telemetry = {"audit_file": audit_file}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(folder))
        with (
            open_door(folder, TinyEngine("one"), TinyEngine("two"), read=read, telemetry=telemetry) as door,
            mock.patch.dict(registry._KINDS, {"litserve": kind}),
        ):
            yield Served(door, folder)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    yield from serve(tmp_path)


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One that no recipe of its tests may change."""
    for served in serve(tmp_path_factory.mktemp("unchanged")):
        (served.folder / "keys.yaml").write_text(f"guest: {{key: {KEY}, models: [three]}}\n")
        (served.folder / "keys.yaml").chmod(0o600)
        pids = [served.pid(name) for name in TWO]
        yield served
        assert [served.pid(name) for name in TWO] == pids
        assert sorted(served.door.supervisor.models) == ["one", "two"]
        assert served.audited() == []


@pytest.mark.parametrize(
    ("recipe", "problem"),
    [
        ("models: {", "expected YAML"),
        ("- one", "settings: expected a mapping"),
        ("", "models: expected one model or more"),
        ({"models": {"one": ECHO}, "modles": {}}, "did you mean models?"),
        ({"models": {"one": {**ECHO, "max_wating": 1}}}, "did you mean models.one.max_waiting?"),
        ({"models": {"one": {**ECHO, "max_waiting": -1}}}, "models.one.max_waiting"),
        ({"models": {"one": {**ECHO, "max_waiting": "many"}}}, "models.one.max_waiting"),
        ({"models": {"one": {"api": "echo"}}}, "models.one.engine"),
        ({"models": {"one": {**ECHO, "engine": "tensorrt"}}}, "models.one.engine"),
        ({"models": {"one": {**ECHO, "api": "ecko"}}}, "models.one.api"),
        ({"models": {"one": {**ECHO, "api": "./not_there.py:API"}}}, "models.one.api"),
        ({"models": {"one": {**ECHO, "source": "./not-there"}}}, "models.one.source"),
        ({"models": {"one": {**ECHO, "init": {"no_such": 1}}}}, "models.one.api"),
        ({"models": {"one": {**ECHO, "runtime": "openvino"}}}, "models.one.runtime"),
        ({"models": {"one": {**ECHO, "batch_timeout_s": 1, "max_batch_size": 1}}}, "models.one.batch_timeout_s"),
        ({"models": {**TWO, "three": {**ECHO, "aliases": ["one"]}}}, "three.aliases: expected new names, got 'one'"),
        ({"models": {"one": {**ECHO, "fallback": "two"}}}, "one.fallback: expected the name of a model, got 'two'"),
        ({"models": {"../one": ECHO}}, "models.../one"),
        ({"models": TWO, "limits": {"max_body_bytes": 0}}, "limits.max_body_bytes"),
        ({"models": TWO, "auth": {"keys_file": "keys.yaml"}}, "guest.models: expected names of models, got 'three'"),
        ({"models": TWO, "server": {"host": "0.0.0.0"}}, "server.host: 0.0.0.0 is reached from other machines"),
        pytest.param(
            {
                "models": {
                    **TWO,
                    "llm": {"engine": "vllm", "source": "smollm2-135m-instruct", "args": {"dtype": "int3"}},
                }
            },
            "models.llm.args.dtype",
            marks=pytest.mark.long,  # vLLM's own parser reads it
        ),
    ],
)
def test_a_recipe_that_would_not_start_changes_nothing(
    unchanged: Served, recipe: Any, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert unchanged.apply(recipe) == 2
    streams = capsys.readouterr()
    assert problem in streams.err
    assert streams.out == ""


def test_models_come_go_and_change_and_no_request_fails(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    door, before = served.door, {name: served.pid(name) for name in TWO}
    models = {"one": {**ECHO, "max_waiting": 8, "aliases": ["uno"]}, "dos": {**ECHO, "aliases": ["two"]}, "new": ECHO}
    statuses: list[int] = []
    ended = threading.Event()

    def keep_asking(name: str) -> None:
        while not ended.is_set():
            statuses.append(served.ask(name, wait_s=0.005).status_code)

    with ThreadPoolExecutor() as pool:
        clients = [pool.submit(keep_asking, name) for name in TWO]
        wait_until(lambda: len(statuses) > 10)
        assert served.apply({"models": models, "server": {"port": 1234}, "limits": {"max_body_bytes": 10**6}}) == 0
        ended.set()
        for client in clients:
            client.result()
    assert set(statuses) == {200}
    lines = capsys.readouterr().out.splitlines()
    assert lines[:6] == [
        "rename   two to dos: " + lines[0].partition(": ")[2],
        "change   one, while it runs",
        '           aliases: [] -> ["uno"]',
        "           max_waiting: 256 -> 8",
        "add      new: starts",
        "restart  server.port: 8000 -> 1234: needs a restart of the platform",
    ]
    assert served.pid("one") == served.pid("uno") == before["one"], "it was not touched"
    assert served.pid("two") == served.pid("dos") != before["two"]
    assert sorted(door.client.get("/ready").json()["models"]) == ["dos", "new", "one"]
    assert {"uno", "two"} < {entry["id"] for entry in door.client.get("/v1/models").json()["data"]}
    page = door.app.metrics
    assert not [s for family in page.collect() for s in family.samples if s.labels.get("model") == "two"]
    audited = served.audited()
    assert [(line["change"], line.get("model"), line.get("error")) for line in audited] == [
        ("set", None, None),
        ("change", "one", None),
        ("rename", "dos", None),
        ("add", "new", None),
    ]
    assert audited[1]["from"] == {"models.one.aliases": "[]", "models.one.max_waiting": "256"}
    assert (audited[2]["from"], audited[2]["to"], audited[2]["state"]) == ({"name": "two"}, {"name": "dos"}, "ready")
    assert served.apply({"models": {"one": models["one"]}, "limits": {"max_body_bytes": 10**6}}) == 0
    assert served.ask("new").status_code == 404
    assert served.pid("one") == before["one"]
    assert served.apply({"models": {"one": models["one"]}, "limits": {"max_body_bytes": 10**6}}) == 0
    assert capsys.readouterr().out.endswith("nothing differs\n")


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


def test_a_change_of_what_a_process_was_started_with_replaces_it_and_is_the_only_change(served: Served) -> None:
    before = served.pid("one")
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(served.ask, "one", wait_s=0.5)
        wait_until(lambda: served.door.supervisor.models["one"].admission.running)
        change = pool.submit(served.apply, {"models": {**TWO, "one": {**ECHO, "env": {"A_TOKEN": "abc"}}}})
        wait_until(lambda: served.door.supervisor.beside)
        assert served.apply({"models": {"one": ECHO}}) == 2, "one at a time"
        assert main(["scale", "two", "2", "--port", str(served.door.port)]) == 2
        assert slow.result().json()["pid"] == before
        assert change.result() == 0
    assert served.pid("one") != before
    [line] = served.audited()
    assert line["to"] == {"models.one.env.A_TOKEN": "**********"}


def test_nothing_is_done_without_a_yes(
    served: Served, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = served.folder / "next.yaml"
    file.write_text(json.dumps({"models": {"one": ECHO}}))
    command = ["apply", str(file), "--port", str(served.door.port)]
    assert main(command) == 2
    streams = capsys.readouterr()
    assert streams.out == "remove   two: ends once its requests are answered\n"
    assert "expected --yes where nobody can be asked" in streams.err
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda _: "n")
    assert main(command) == 2
    assert served.ask("two").status_code == 200
    monkeypatch.setattr("builtins.input", lambda _: "y")
    assert main(command) == 0
    assert served.ask("two").status_code == 404


def test_a_recipe_of_the_start_is_read_again_for_a_signal(served: Served) -> None:
    door = served.door
    (served.folder / "recipe.yaml").write_text(
        json.dumps({"models": {"one": ECHO, "three": {**ECHO, "load": "on_demand", "replicas": 2}}})
    )
    door.loop.call_soon_threadsafe(door.platform.declaration.reload, "SIGHUP")
    wait_until(lambda: sorted(door.supervisor.models) == ["one", "three"])
    assert door.supervisor.models["three"].state is State.UNLOADED
    assert served.ask("three").status_code == 200
    wait_until(lambda: len(served.audited()) == 2)
    assert {line["who"] for line in served.audited()} == {"SIGHUP"}
