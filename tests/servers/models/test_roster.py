"""Models come, go and are replaced while requests go on, over real child processes."""

import asyncio
import contextlib
import subprocess
import sys
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from servers.models import restart
from servers.models.instance import Instance, State
from servers.models.model import Model
from servers.models.start import StartError
from tests.services.front_door import Door, open_door
from tests.services.polling import wait_until
from tests.services.supervision import model_of
from tests.services.tiny_engine import TinyEngine


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    with open_door(tmp_path, TinyEngine("one"), model={"canary_interval_s": None}) as door:
        yield door


def test_models_come_go_and_are_replaced_and_no_request_fails(door: Door, tmp_path: Path) -> None:
    roster, one = door.platform.roster, door.supervisor.models["one"]
    with traffic(door, "one") as answers:
        run(door, roster.add(make(tmp_path, "two")))
        assert ask(door, "two").status_code == 200
        run(door, roster.replace(one, make(tmp_path, "one", number=11)))
        wait_until(lambda: answers[-1].json()["pid"] not in {answers[0].json()["pid"]})
        run(door, roster.remove(door.supervisor.models["two"]))
        assert ask(door, "two").status_code == 404
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["pid"] for answer in answers}) == 2, "the old version, then the new one"
    assert (one.state, one.instances[0].group_id) == (State.STOPPED, None)
    assert list(door.supervisor.all_models) == list(door.supervisor.models.values())
    assert sorted(door.client.get("/ready").json()["models"]) == ["one"]
    assert [path.name for path in (tmp_path / "run").glob("*.sock")] == ["11.sock"]


def test_processes_that_cannot_take_over_a_change_are_told_of(door: Door) -> None:
    one = door.supervisor.models["one"]
    with pytest.raises(StartError, match="cannot take the change over"):
        run(door, door.platform.roster.adapt(one, one.settings))


def test_requests_in_hand_are_answered_by_the_version_that_got_them(door: Door, tmp_path: Path) -> None:
    one, following = door.supervisor.models["one"], make(tmp_path, "uno", aliases=["one"])
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(ask, door, "one", wait_s=1.0)
        wait_until(lambda: one.admission.running)
        change = pool.submit(run, door, door.platform.roster.replace(one, following))
        wait_until(lambda: one.is_leaving)
        later = pool.submit(ask, door, "one")  # the name is an alias of the new one's by now
        assert slow.result().status_code == later.result().status_code == 200
        assert slow.result().json()["pid"] != later.result().json()["pid"]
        change.result()
    assert list(door.supervisor.models) == ["uno"]


def test_a_version_that_does_not_start_ends_nothing_and_can_be_replaced_again(door: Door, tmp_path: Path) -> None:
    broken = make(tmp_path, "one", argv=["-c", "raise ValueError('no such weights')"])
    with pytest.raises(StartError, match="no such weights"):
        run(door, door.platform.roster.replace(door.supervisor.models["one"], broken))
    assert (broken.state, door.platform.failed) == (State.STOPPED, False)
    assert ask(door, "one").headers["x-litport-version"] == "v1", "the old one goes on"
    run(door, door.platform.roster.replace(door.supervisor.models["one"], make(tmp_path, "one", number=11)))
    assert ask(door, "one").headers["x-litport-version"] == "v3"


def test_whoever_waits_for_a_server_elsewhere_is_told_that_it_is_away(
    door: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value_s in {"FIRST_BACKOFF": 0.05, "MAX_BACKOFF_ELSEWHERE": 0.1, "LONGEST_WAIT_ELSEWHERE": 0.3}.items():
        monkeypatch.setattr(restart, f"_{name}_S", value_s)
    added, started = (make(tmp_path, name, number=number) for number, name in enumerate(("two", "three"), 20))
    for model in (added, started):
        model.choose().address = "http://127.0.0.1:9"
    with pytest.raises(StartError, match="cannot be reached"):
        run(door, door.platform.roster.add(added))
    assert added.state is State.UNLOADED, "the next request tries again"
    answer = ask(door, "two")
    assert (answer.status_code, "cannot be reached" in answer.text) == (503, True)

    door.supervisor.install(started)
    door.loop.call_soon_threadsafe(door.supervisor.begin, started)
    with pytest.raises(StartError, match="asked again until it answers"):
        run(door, door.platform.loader.load(started))
    assert started.state is State.STARTING
    with subprocess.Popen([sys.executable, "-m", "tests.services.tiny_server", started.choose().socket]) as server:
        wait_until(lambda: started.state is State.READY)
        run(door, door.platform.loader.load(started))
        assert ask(door, "three").status_code == 200
        server.terminate()


def make(folder: Path, name: str, argv: list[str] | None = None, number: int = 10, **settings: Any) -> Model:
    engine = TinyEngine(name) if argv is None else TinyEngine(name, argv=argv)
    return model_of(engine, Instance(folder / "run" / f"{number}.sock", folder / f"{name}.log"), **settings)


def run(door: Door, step: Coroutine[Any, Any, None]) -> None:
    asyncio.run_coroutine_threadsafe(step, door.loop).result(20)


def ask(door: Door, name: str, **body: Any) -> httpx.Response:
    return door.client.post("/v1/chat/completions", json={"model": name, **body})


@contextlib.contextmanager
def traffic(door: Door, name: str) -> Iterator[list[httpx.Response]]:
    """Two clients that ask the model until the block ends, and their answers."""
    answers: list[httpx.Response] = []
    ended = threading.Event()

    def keep_asking() -> None:
        while not ended.is_set():
            answers.append(ask(door, name, wait_s=0.01))

    with ThreadPoolExecutor() as pool:
        clients = [pool.submit(keep_asking) for _ in range(2)]
        wait_until(lambda: len(answers) > 4)
        try:
            yield answers
        finally:
            ended.set()
            for client in clients:
                client.result()
