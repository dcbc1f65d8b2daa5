"""Models that sleep, over real child processes: what sleeps keeps its processes and wakes for a request."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from servers.engines.base import CanaryError, Card, Command
from servers.engines.connection import Connection
from servers.models.instance import State
from tests.services.front_door import Door, open_door
from tests.services.polling import wait_until
from tests.services.supervision import group_of
from tests.services.tiny_engine import TinyEngine

IDLE = {"load": "on_demand", "min_resident_s": 0, "canary_interval_s": 0.05, "idle_unload_s": 0.2}
ON_DEMAND = {**IDLE, "idle_unload_s": None}
HALF = {"0": 0.6}
MIB = 1024**2


@dataclass
class Sleepy(TinyEngine):
    """A tiny engine that can sleep, and whose `steps` say what was asked of it; `refused` are steps that fail."""

    sleep_levels: tuple[int, ...] = (1, 2)
    steps: list[str] = field(default_factory=list)
    refused: frozenset[str] = frozenset()
    is_asleep: bool = False

    def command(self, model_dir: Path | None, socket: Path) -> Command:
        self.is_asleep = False
        return super().command(model_dir, socket)

    def shares_asleep(self) -> Mapping[str, float]:
        return dict.fromkeys(self.gpu_shares, 0.05)

    async def sleep(self, connection: Connection, card: Card, level: int, before: int) -> None:
        self.is_asleep = True
        await self._take(f"sleep {before} {level}")

    async def wake(self, connection: Connection, card: Card, level: int) -> None:
        await self._take(f"wake {level}")
        self.is_asleep = False

    async def canary(self, connection: Connection, card: Card) -> None:
        assert not self.is_asleep, "who sleeps is not asked"
        await super().canary(connection, card)

    async def _take(self, step: str) -> None:
        self.steps.append(step)
        await asyncio.sleep(0.05)
        if step in self.refused:
            raise CanaryError(f"no {step}")


def test_an_idle_model_sleeps_deeper_and_deeper_and_is_then_unloaded(tmp_path: Path) -> None:
    engine = Sleepy("one")
    with open_door(tmp_path, engine, model=IDLE) as door:
        pid = ask(door, "one")
        for expected in (("asleep", "level 1"), ("asleep", "level 2")):
            wait_until(partial(lambda state: detail(door) == state, expected))
            assert door.supervisor.models["one"].choose().group_id is not None
        wait_until(lambda: detail(door) == ("unloaded", ""))
        assert engine.steps == ["sleep 0 1", "sleep 1 2"]
        engine.steps.clear()
        assert ask(door, "one") != pid
        transitions = door.supervisor.models["one"].transitions
        assert (transitions[State.ASLEEP], transitions[State.UNLOADED]) == (1, 2)


def test_a_request_wakes_it_and_the_same_process_answers(tmp_path: Path) -> None:
    engine = Sleepy("one", sleep_levels=(1,))
    with open_door(tmp_path, engine, model={**IDLE, "idle_unload_s": 0.5}) as door:
        pid = ask(door, "one")
        for count in (1, 2):
            wait_until(lambda: detail(door) == ("asleep", "level 1"))
            assert door.client.get("/ready").json() == {"ready": True, "models": {"one": "asleep"}}
            with ThreadPoolExecutor() as pool:
                assert set(pool.map(lambda _: ask(door, "one"), range(8))) == {pid}
            assert engine.steps == ["sleep 0 1", "wake 1"] * count
        status: dict[str, Any] = door.client.get("/status").json()["models"][0]
        assert status["residence"]["loads"] == 3
        assert 0.05 <= status["residence"]["wake_s"] < 10
        assert list(status["phases_s"]) == ["wake"]
        assert status["restarts"] == 0


@pytest.mark.parametrize("refused", ["wake 1", "sleep 0 1"])
def test_one_that_does_not_sleep_or_wake_is_started_anew(
    tmp_path: Path, refused: str, caplog: pytest.LogCaptureFixture
) -> None:
    engine = Sleepy("one", sleep_levels=(1,), refused=frozenset({refused}))
    with open_door(tmp_path, engine, model=IDLE) as door:
        pid = ask(door, "one")
        wait_until(lambda: detail(door)[0] == ("asleep" if refused == "wake 1" else "unloaded"))
        assert ask(door, "one") != pid
        assert f"no {refused}" in caplog.text


def test_models_take_turns_on_a_gpu_without_a_start(tmp_path: Path) -> None:
    engines = [Sleepy(name, gpu_shares=HALF) for name in ("one", "two")]
    with open_door(tmp_path, *engines, model=ON_DEMAND) as door:
        pids = {name: ask(door, name) for name in ("one", "two")}
        assert states(door) == {"one": "asleep", "two": "ready"}
        for name in ("one", "two", "one"):
            assert ask(door, name) == pids[name]
        assert states(door) == {"one": "ready", "two": "asleep"}
        assert engines[1].steps == ["sleep 0 1", "wake 1", "sleep 0 1"]
        shares = {name: dict(model.residence.gpu_shares) for name, model in door.supervisor.models.items()}
        assert shares == {"one": HALF, "two": {"0": 0.05}}


def test_without_memory_for_the_weights_a_full_gpu_ends_it(tmp_path: Path) -> None:
    engines = [Sleepy("one", gpu_shares=HALF, memory_bytes=100 * MIB), Sleepy("two", gpu_shares=HALF)]
    with open_door(tmp_path, *engines, model=ON_DEMAND, server={"memory_budget_bytes": 200 * MIB}) as door:
        for name in ("one", "two"):
            ask(door, name)
        assert states(door) == {"one": "unloaded", "two": "ready"}
        assert engines[0].steps == []


def test_one_that_sleeps_is_ended_where_memory_is_short(tmp_path: Path) -> None:
    engines = [Sleepy("one", gpu_shares=HALF), Sleepy("two", gpu_shares=HALF), TinyEngine("large")]
    engines[2].memory_bytes = 170 * MIB
    with open_door(tmp_path, *engines, model=ON_DEMAND, server={"memory_budget_bytes": 210 * MIB}) as door:
        for name in ("one", "two"):
            ask(door, name)
        assert states(door)["one"] == "asleep"
        ask(door, "large")
        assert states(door) == {"one": "unloaded", "two": "ready", "large": "ready"}


def test_one_that_dies_asleep_is_unloaded_and_starts_for_the_next_request(tmp_path: Path) -> None:
    engine = Sleepy("one", gpu_shares=HALF)
    with open_door(tmp_path, engine, model={**IDLE, "idle_unload_s": 1}) as door:
        ask(door, "one")
        wait_until(lambda: detail(door) == ("asleep", "level 1"))
        model = door.supervisor.models["one"]
        os.kill(group_of(model), signal.SIGKILL)
        wait_until(lambda: detail(door)[0] == "unloaded")
        assert (model.residence.has_room, model.residence.sleep_level) == (False, 0)
        engine.steps.clear()
        ask(door, "one")
        assert engine.steps == []


def test_a_command_ends_one_that_sleeps_and_a_new_replica_joins_no_sleeper(tmp_path: Path) -> None:
    engine = Sleepy("one", sleep_levels=(1,))
    with open_door(tmp_path, engine, model={**IDLE, "idle_unload_s": 2}) as door:
        ask(door, "one")
        wait_until(lambda: detail(door) == ("asleep", "level 1"))
        work = door.platform.loader.unload(door.supervisor.models["one"], "command")
        asyncio.run_coroutine_threadsafe(work, door.loop).result(20)
        assert detail(door) == ("unloaded", "")
        ask(door, "one")
        wait_until(lambda: detail(door) == ("asleep", "level 1"))
        order = door.app.revisions.make("scale", "one", b'{"replicas": 2}', "somebody")
        asyncio.run_coroutine_threadsafe(order, door.loop).result(20)
        instances = door.supervisor.models["one"].instances
        wait_until(lambda: ask(door, "one") and [item.state for item in instances] == [State.READY] * 2)


def test_one_that_sleeps_ends_for_one_that_waits_though_it_is_asked_for(tmp_path: Path) -> None:
    """Else it would wait for the other in the row for room, and the other for its memory."""
    engines = [Sleepy("one", gpu_shares=HALF), TinyEngine("large", memory_bytes=170 * MIB)]
    stays = TinyEngine("stays", memory_bytes=10 * MIB)
    models = {"stays": {"load": "at_start"}}
    budget = {"memory_budget_bytes": 217 * MIB}
    with (
        open_door(tmp_path, *engines, stays, model=ON_DEMAND, models=models, server=budget) as door,
        ThreadPoolExecutor() as pool,
    ):
        one, room = door.supervisor.models["one"], door.platform.loader.room
        pid = ask(door, "one")
        asyncio.run_coroutine_threadsafe(door.platform.loader.unload(one, "idle", may_sleep=True), door.loop).result(5)
        assert one.state is State.ASLEEP
        asyncio.run_coroutine_threadsafe(room._row.acquire(), door.loop).result(5)
        answers = [pool.submit(ask, door, "large")]
        wait_until(lambda: door.supervisor.models["large"].admission.waiting)
        answers.append(pool.submit(ask, door, "one"))
        wait_until(lambda: one.admission.waiting)
        door.loop.call_soon_threadsafe(room._row.release)
        large, other = (answer.result() for answer in answers)
        assert pid != other != large


def test_a_version_that_slept_when_it_was_replaced_is_a_way_back(tmp_path: Path) -> None:
    engine = Sleepy("one", sleep_levels=(1,))
    with open_door(tmp_path, engine, model={**IDLE, "idle_unload_s": 1}) as door:
        ask(door, "one")
        wait_until(lambda: detail(door) == ("asleep", "level 1"))
        before = door.supervisor.models["one"]
        engine.steps.clear()
        work = door.platform.roster.start_beside(before, before)
        asyncio.run_coroutine_threadsafe(work, door.loop).result(20)
        assert before.state is State.READY
        assert engine.steps == [], "it was started anew"


def test_no_request_fails_while_it_falls_asleep_and_wakes_all_the_time(tmp_path: Path) -> None:
    engine = Sleepy("one")
    with open_door(tmp_path, engine, model={**IDLE, "idle_unload_s": 0.02, "canary_interval_s": None}) as door:
        until_s = time.monotonic() + 3

        def keep_asking(number: int) -> int:
            count = 0
            while time.monotonic() < until_s:
                ask(door, "one")
                count += 1
                threading.Event().wait(0.01 * (count % 7 + number))
            return count

        with ThreadPoolExecutor() as pool:
            assert sum(pool.map(keep_asking, range(3))) > 10
        assert {"sleep 0 1", "wake 1"} <= set(engine.steps)


def ask(door: Door, model: str) -> int:
    """The process that answers."""
    answer = door.client.post("/v1/chat/completions", json={"model": model})
    assert answer.status_code == 200, answer.text
    pid: int = answer.json()["pid"]
    return pid


def detail(door: Door) -> tuple[str, str]:
    """State and detail of the first model."""
    status = door.client.get("/status").json()["models"][0]
    return status["state"], status["detail"]


def states(door: Door) -> Mapping[str, str]:
    """The state of each model."""
    return {name: model.state.value for name, model in door.supervisor.models.items()}
