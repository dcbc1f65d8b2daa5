"""The commands that change a running platform reach the one they name, and nobody else's."""

import asyncio
import json
import os
import socket
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from litport import main
from servers.models.instance import State
from servers.platform import admin_socket, commands
from tests.services.front_door import Door, open_door
from tests.services.polling import wait_until
from tests.services.tiny_engine import TinyEngine

CHAT = "/v1/chat/completions"


@pytest.fixture(autouse=True)
def runtime_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def doors(tmp_path: Path) -> Iterator[tuple[Door, Door]]:
    """Two platforms with the same models; the first has an audit log."""
    folders = tmp_path / "a", tmp_path / "b"
    for folder in folders:
        folder.mkdir()
    on_demand = {"load": "on_demand"}
    engines = TinyEngine("one"), TinyEngine("org/two")
    audit = {"audit_file": str(tmp_path / "audit.jsonl")}
    with (
        open_door(folders[0], *engines, model=on_demand, telemetry=audit) as first,
        open_door(folders[1], *engines, model=on_demand) as second,
    ):
        yield first, second


def test_each_command_reaches_the_platform_that_it_names_and_is_audited(
    doors: tuple[Door, Door], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = doors[0]
    port = ["--port", str(first.port)]
    assert main(["load", "org/two", *port]) == 0
    assert main(["logs", "org/two", *port]) == 0
    assert [door.supervisor.models["org/two"].state for door in doors] == [State.READY, State.UNLOADED]
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(first.client.post, CHAT, json={"model": "org/two", "wait_s": 0.3})
        wait_until(lambda: first.supervisor.models["org/two"].admission.running)
        assert main(["stop", "org/two", *port]) == 0
        assert slow.result().status_code == 200, "it was waited for"
    assert capsys.readouterr().out.splitlines() == [
        "org/two: ready (before: unloaded)",
        "org/two: unloaded (before: ready)",
    ]
    assert main(["load", "three", *port]) == 2
    assert "there are: one, org/two" in capsys.readouterr().err
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    changes = [line for line in lines if "change" in line]
    assert [(line["change"], line["model"], line["before"], line["state"], line["error"]) for line in changes] == [
        ("load", "org/two", "unloaded", "ready", None),
        ("unload", "org/two", "ready", "unloaded", None),
    ]
    assert changes[0]["who"] == f"uid {os.getuid()}, process {os.getpid()}"


def test_the_log_is_followed_into_a_new_file_and_none_of_its_lines_is_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "one.log"
    file.write_text("first\n")
    following = iter(("last of the old one\n", None))

    def wait(_: float) -> None:
        if line := next(following):
            with file.open("a") as log:
                log.write(line)
            file.rename(tmp_path / "one.log.1")
            file.write_text("first of the new one\n")
        else:
            raise KeyboardInterrupt

    monkeypatch.setattr("servers.platform.commands.time.sleep", wait)
    with pytest.raises(KeyboardInterrupt):
        commands._print(file, follows=True)
    assert capsys.readouterr().out == "first\nlast of the old one\nfirst of the new one\n"


def test_the_socket_is_this_users_alone_and_goes_with_its_platform(tmp_path: Path) -> None:
    folder = tmp_path / "litport"
    folder.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as ended:
        ended.bind(str(folder / "1.sock"))
    with open_door(tmp_path, TinyEngine("one"), model={"load": "on_demand"}) as door:
        (path,) = folder.iterdir()
        assert path.name == f"{door.port}.sock", "that of the ended platform is gone"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert admin_socket.find(door.port) == path
        with pytest.raises(FileExistsError):
            admin_socket.bind(door.port)
        folder.chmod(0o755)
        assert admin_socket.find(door.port) is None, "others could have made it"
    assert list(folder.iterdir()) == []


def test_over_http_only_a_key_with_the_right_changes_anything(tmp_path: Path) -> None:
    keys = tmp_path / "keys.yaml"
    keys.write_text(f"root: {{key: {'r' * 20}, admin: true}}\nguest: {{key: {'g' * 20}}}\n")
    keys.chmod(0o600)
    audit = {"audit_file": str(tmp_path / "audit.jsonl")}
    auth = {"keys_file": str(keys)}
    with open_door(tmp_path, TinyEngine("one"), model={"load": "on_demand"}, auth=auth, telemetry=audit) as door:
        guest, root = ({"x-api-key": letter * 20} for letter in "gr")
        refused = door.client.post("/admin/load/one", headers=guest)
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "not_admin")
        assert door.supervisor.models["one"].state is State.UNLOADED
        for action, document in (
            ("load", {"model": "one", "before": "unloaded", "state": "ready"}),
            ("unload", {"model": "one", "before": "ready", "state": "unloaded"}),
        ):
            assert door.client.post(f"/admin/{action}/one", headers=root).json() == document
        assert door.client.post("/admin/load/two", headers=root).status_code == 404
    lines = map(json.loads, (tmp_path / "audit.jsonl").read_text().splitlines())
    assert [line["who"] for line in lines if "change" in line] == ["key root", "key root"]
    (tmp_path / "open").mkdir()
    with open_door(tmp_path / "open", TinyEngine("one"), model={"load": "on_demand"}) as door:
        assert door.client.post("/admin/load/one").status_code == 403, "nor where nobody needs a key"


def test_a_load_that_fails_and_an_absent_platform_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = TinyEngine("one", argv=["-c", "raise ValueError('no such weights')"])
    with open_door(tmp_path, broken, model={"load": "on_demand"}) as door:
        assert main(["load", "one", "--port", str(door.port)]) == 2
        assert "litport: one could not be loaded: " in (error := capsys.readouterr().err)
        assert "no such weights" in error
        assert error.count("\n") == 1
        assert main(["logs", "one", "--port", str(door.port)]) == 0
        assert "ValueError: no such weights" in capsys.readouterr().out
        asyncio.run_coroutine_threadsafe(door.platform.drain(), door.loop).result(5)
        assert main(["load", "one", "--port", str(door.port)]) == 2
        assert "shutting down" in capsys.readouterr().err
    assert main(["unload", "one", "--port", str(door.port)]) == 2
    assert f"no platform of this user answers on port {door.port}" in capsys.readouterr().err
