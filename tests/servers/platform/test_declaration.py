"""A running platform is brought to what a recipe says: what changes, what stays, and that nothing fails meanwhile."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest import mock

import pytest

from litport import main
from servers.models.instance import State
from tests.servers.platform.conftest import ECHO, TWO, Served, serve
from tests.services.polling import wait_until

KEY = "k" * 20


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
    for answer in (mock.Mock(return_value="n"), mock.Mock(side_effect=EOFError)):
        monkeypatch.setattr("builtins.input", answer)
        assert main(command) == 2
    assert served.ask("two").status_code == 200
    monkeypatch.setattr("builtins.input", lambda _: "y")
    assert main(command) == 0
    assert served.ask("two").status_code == 404


def test_a_plan_is_out_of_date_once_a_model_is_scaled(
    served: Served, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    port = ["--port", str(served.door.port)]
    file = served.folder / "next.yaml"
    file.write_text(json.dumps({"models": {**TWO, "one": {**ECHO, "max_waiting": 8}}}))

    def scale(_: str) -> str:
        assert main(["scale", "one", "2", *port]) in (0, None)
        return "y"

    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", scale)
    assert main(["apply", str(file), *port]) == 2
    assert "the platform has changed since this plan was made" in capsys.readouterr().err
    assert served.door.supervisor.models["one"].settings.max_waiting == 256


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
