"""On a GPU, adapters come and go in the process that serves: nothing starts anew, and no request fails."""

import itertools
import json
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import pytest

from configs.loading import LoadedSettings
from configs.settings import VllmModel
from litport import main
from servers.engines import registry
from servers.engines.base import Command
from servers.engines.kind import Site
from servers.engines.vllm import adapters
from servers.engines.vllm import engine as vllm
from servers.engines.vllm.engine import VLLM, VllmEngine
from servers.platform import targets
from tests.services.front_door import Door, open_door
from tests.services.lora import write_adapter, write_model
from tests.services.polling import wait_until
from tests.services.tiny_engine import TinyEngine


class StandIn(VllmEngine):
    """vLLM's engine over the stand-in for its server."""

    def command(self, model_dir: Path | None, socket: Path) -> Command:
        modules = adapters.options(self.settings, self.cache_dir, model_dir).get("lora-modules", [])
        return Command([sys.executable, "-m", "tests.services.lora_server", str(socket), self.name, *modules], {})


@dataclass(frozen=True)
class Served:
    """A platform with a model `chat` on two replicas of the stand-in, whose adapter `one` has rank 2."""

    door: Door
    folder: Path
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def apply(self, **adapters: str) -> int:
        """Apply the recipe with these adapters, by their folders; the exit status."""
        sources = {name.replace("_", "-"): {"source": str(self.folder / source)} for name, source in adapters.items()}
        chat = {"engine": "vllm", "source": str(self.folder / "base"), "devices": [[0], [1]], "replicas": 2}
        file = self.folder / "next.yaml"
        file.write_text(json.dumps({"models": {"chat": {**chat, "adapters": sources}}}))
        return main(["apply", str(file), "--port", str(self.door.port), "--yes"])

    def ask(self, name: str) -> httpx.Response:
        """The answer of a model or an adapter."""
        prompt = f"{next(self.numbers)}"  # each likely has another replica
        return self.door.client.post("/v1/completions", json={"model": name, "prompt": prompt})

    def pids(self) -> set[int]:
        """The processes that answer."""
        return {self.ask("chat").json()["pid"] for _ in range(16)}

    def loaded(self) -> list[set[str]]:
        """What each process has."""
        found = []
        for instance in self.door.supervisor.models["chat"].instances:
            with httpx.Client(transport=httpx.HTTPTransport(uds=str(instance.socket))) as client:
                found.append({entry["id"] for entry in client.get("http://a/v1/models").json()["data"]})
        return found

    def names(self) -> set[str]:
        """What callers see."""
        return {entry["id"] for entry in self.door.client.get("/v1/models").json()["data"]}


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    def read(recipes: Sequence[Path]) -> LoadedSettings:
        overrides = [f"--server.cache_dir={tmp_path}", "--telemetry.sample_interval_s=null"]
        return targets.load([*map(str, recipes)], overrides)

    def make(name: str, settings: VllmModel, site: Site) -> StandIn:
        return StandIn(name, settings, paths=site.paths, cache_dir=site.settings.server.cache_dir, number=site.number)

    monkeypatch.setattr(vllm, "on_cpu", lambda: False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    write_model(tmp_path / "base")
    write_adapter(tmp_path / "small")
    write_adapter(tmp_path / "small-too", layer=0)
    write_adapter(tmp_path / "large", rank=9)
    kinds = {"vllm": replace(VLLM, make=make)}
    with (
        open_door(tmp_path, TinyEngine("chat"), read=read) as door,
        mock.patch.dict(registry._KINDS, kinds),
    ):
        served = Served(door, tmp_path)
        assert served.apply(one="small") == 0
        wait_until(lambda: len(served.pids()) == 2)
        yield served


def test_they_come_and_go_while_both_replicas_serve(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    pids, statuses, ended = served.pids(), list[int](), threading.Event()

    def keep_asking(name: str) -> None:
        while not ended.is_set():
            statuses.append(served.ask(name).status_code)

    with ThreadPoolExecutor() as pool:
        clients = [pool.submit(keep_asking, name) for name in ("chat", "one")]
        assert served.apply(one="small", two="small-too") == 0
        assert "change   chat, while it runs" in capsys.readouterr().out
        assert {served.ask("two").json()["model"] for _ in range(16)} == {"two"}, "both replicas have it"
        assert served.names() == {"chat", "one", "two"}
        assert served.apply(one="small") == 0
        ended.set()
        for client in clients:
            client.result()
    assert set(statuses) == {200}
    assert served.ask("two").status_code == 404
    assert served.names() == {"chat", "one"}
    assert served.pids() == pids, "no process was started"


def test_one_that_vllm_refuses_changes_nothing_and_a_later_start_has_what_was_added(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    pids = served.pids()
    assert served.apply(one="small", two="small-too", bad_one="small-too") == 2
    assert "chat could not be changed: POST /v1/load_lora_adapter was answered 400" in capsys.readouterr().err
    assert (served.names(), served.pids(), served.ask("two").status_code) == ({"chat", "one"}, pids, 404)
    assert served.loaded() == [{"chat", "one"}] * 2, "they have none of it"
    assert served.apply(two="small-too") == 0
    assert served.ask("one").status_code == 404
    [command] = {tuple(_command(served, number)[-1:]) for number in range(2)}
    assert command == (f"two={served.folder / 'small-too'}",), "a restart begins with it"


def test_another_source_and_a_higher_rank_take_new_processes(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    for change in ({"one": "small-too"}, {"one": "small-too", "two": "large"}):
        pids = served.pids()
        assert served.apply(**change) == 0
        assert "replace  chat: a new one starts beside it" in capsys.readouterr().out
        wait_until(lambda: len(served.pids()) == 2)
        assert not served.pids() & pids
        assert served.names() == {"chat", *change}


@pytest.mark.parametrize(
    ("names", "args", "can"),
    [
        (["one"], {}, True),
        ([], {}, False),  # started without --enable-lora
        (["one"], {"data-parallel-size": 2}, False),  # vLLM does not start so with the route that loads
        (["one"], {"api_server_count": 2}, False),
        (["one"], {"lora-modules": ["other=org/other"]}, False),
    ],
)
def test_vllm_loads_them_where_it_was_started_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str], args: dict[str, Any], can: bool
) -> None:
    monkeypatch.setattr(vllm, "on_cpu", lambda: False)
    folder = write_adapter(tmp_path / "small")
    before, after = (
        VllmModel.model_validate(
            {
                "engine": "vllm",
                "source": "org/base",
                "args": args,
                "adapters": {name: {"source": str(folder)} for name in n},
            }
        )
        for n in (names, ["one", "two"])
    )
    engine = VllmEngine("chat", before, cache_dir=tmp_path)
    assert (engine.adapted(after) is not None) is can
    environ = engine.command(write_model(tmp_path / "base"), tmp_path / "s.sock").environ
    assert environ.get("VLLM_ALLOW_RUNTIME_LORA_UPDATING") == ("1" if can else None)


def _command(served: Served, number: int) -> list[str]:
    """The command that starts a replica again."""
    model = served.door.supervisor.models["chat"]
    instance = model.instances[number]
    command = model.engine_of(instance).command(served.folder / "base", instance.socket)
    assert command is not None
    return command.argv
