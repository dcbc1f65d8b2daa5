"""Models that are loaded on demand, over real child processes: one load for all, no request lost, room for the next."""

import asyncio
import os
import signal
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from servers.errors import ApiError
from servers.models.instance import State
from tests.services.front_door import Door, open_door
from tests.services.polling import wait_until
from tests.services.supervision import group_of
from tests.services.tiny_engine import TinyEngine

ON_DEMAND = {"load": "on_demand", "min_resident_s": 0, "canary_interval_s": None}
MIB = 1024**2
# Two of them fit, three do not: each holds this much, and Python takes some 25 MiB in two processes.
HELD, BUDGET = 80 * MIB, 280 * MIB
CHAT = "/v1/chat/completions"


def test_fifty_clients_of_an_unloaded_model_cause_one_load(tmp_path: Path) -> None:
    with open_door(tmp_path, TinyEngine("one"), model=ON_DEMAND) as door:
        assert door.client.get("/ready").json() == {"ready": True, "models": {"one": "unloaded"}}
        assert door.client.get("/v2/models/one/ready").json() == {"name": "one", "ready": True}
        answers = ask_at_once(door, 50)
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.json()["pid"] for answer in answers}) == 1
        model = door.supervisor.models["one"]
        assert (model.residence.loads["ok"], model.transitions[State.STARTING]) == (1, 2)  # one is the initial state


def test_an_idle_model_is_unloaded_and_wakes_for_the_next_request(tmp_path: Path) -> None:
    with open_door(tmp_path, TinyEngine("one"), model={**ON_DEMAND, "idle_unload_s": 0.1}) as door:
        for loads in (1, 2):
            assert ask(door, "one").status_code == 200
            status = wait_for(door, "one", "unloaded")
            residence = status["residence"]
            assert (residence["loads"], residence["unloads"]["idle"]) == (loads, loads)
            assert (status["group_id"], status["process_count"]) == (None, None)
        listing = door.client.get("/v1/models").json()["data"]
        assert [(entry["id"], entry["state"]) for entry in listing] == [("one", "unloaded")]
        assert door.client.get("/ready").status_code == 200
    with open_door(tmp_path, TinyEngine("one"), model=ON_DEMAND) as door:
        assert ask(door, "one").status_code == 200
        estimate_bytes = door.supervisor.models["one"].residence.estimate_bytes
        assert estimate_bytes == pytest.approx(status["residence"]["measured_bytes"], rel=0.02), "as it was measured"


def test_a_model_that_lacks_one_of_its_processes_keeps_its_size(tmp_path: Path) -> None:
    with open_door(tmp_path, TinyEngine("one"), model=ON_DEMAND) as door:
        assert ask(door, "one").status_code == 200
        model = door.supervisor.models["one"]
        model.residence.measured_bytes = 7
        connection: Any = model.choose().connection
        connection.is_complete = False
        unload(door, "one")
        assert model.residence.measured_bytes == 7


def test_what_a_model_offers_is_judged_after_its_first_load_and_remembered(tmp_path: Path) -> None:
    with open_door(tmp_path, TinyEngine("one"), model=ON_DEMAND) as door:
        answer = ask(door, "one", "/v1/embeddings")
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unsupported_route")
        unload(door, "one")
        assert ask(door, "one", "/v1/embeddings").status_code == 400
        assert door.client.post("/predict/one", json={}).status_code == 200
        assert door.supervisor.models["one"].residence.loads["ok"] == 2, "a wrong path alone loads nothing"


def test_a_key_without_the_right_loads_nothing(tmp_path: Path) -> None:
    keys = tmp_path / "keys.yaml"
    keys.write_text(f"guest: {{key: {'k' * 20}, models: [two]}}\n")
    auth = {"keys_file": str(keys)}
    with open_door(tmp_path, TinyEngine("one"), TinyEngine("two"), model=ON_DEMAND, auth=auth) as door:
        answer = ask(door, "one", headers={"authorization": f"Bearer {'k' * 20}"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "model_not_allowed")
        assert door.supervisor.models["one"].state is State.UNLOADED


@pytest.mark.long
def test_a_load_that_fails_is_told_to_all_who_wait_and_tried_again_later(tmp_path: Path) -> None:
    flag = tmp_path / "weights"
    script = f"import os, runpy, sys; os.path.exists({str(flag)!r}) or sys.exit('ValueError: no such weights'); "
    script += "sys.argv[:] = sys.argv[1:] and ['tiny', sys.argv[-1]]; "
    script += "runpy.run_module('tests.services.tiny_server', run_name='__main__')"
    with open_door(tmp_path, TinyEngine("one", argv=["-c", script]), model=ON_DEMAND) as door:
        for answer in (*ask_at_once(door, 5), ask(door, "one")):
            error = answer.json()["error"]
            assert (answer.status_code, error["code"]) == (503, "model_not_ready")
            assert "could not be loaded" in error["message"]
            assert "no such weights" in error["message"]
            assert int(answer.headers["retry-after"]) == 1
        assert door.client.get("/ready").status_code == 200, "the platform goes on"
        model = door.supervisor.models["one"]
        assert (model.residence.loads["failed"], model.state) == (1, State.UNLOADED)
        flag.touch()
        wait_until(lambda: ask(door, "one").status_code == 200)


@pytest.mark.long
def test_a_model_that_is_killed_while_it_loads_is_loaded_by_the_next_request(tmp_path: Path) -> None:
    with open_door(tmp_path, TinyEngine("one"), model=ON_DEMAND) as door, ThreadPoolExecutor() as pool:
        model = door.supervisor.models["one"]
        answer = pool.submit(ask, door, "one")
        wait_until(lambda: model.choose().group_id)
        os.kill(group_of(model), signal.SIGKILL)
        assert answer.result().status_code == 503
        wait_until(lambda: ask(door, "one").status_code == 200)
        os.kill(group_of(model), signal.SIGKILL)
        wait_until(lambda: model.restarts == 1)
        wait_until(lambda: ask(door, "one").status_code == 200)


@pytest.mark.long
def test_without_waiting_a_request_is_refused_and_the_model_is_loaded(tmp_path: Path) -> None:
    with open_door(tmp_path, TinyEngine("one"), model={**ON_DEMAND, "on_demand_wait": False}) as door:
        answer = ask(door, "one")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_not_ready")
        assert 1 <= int(answer.headers["retry-after"]) <= 120
        wait_for(door, "one", "ready")
        assert ask(door, "one").status_code == 200


def test_where_nobody_waits_the_fallback_answers_until_the_model_is_loaded(tmp_path: Path) -> None:
    models = {
        "one": {"load": "on_demand", "on_demand_wait": False, "fallback": "two"},
        "two": {"load": "at_start"},
    }
    with open_door(tmp_path, TinyEngine("one"), TinyEngine("two"), models=models) as door:
        assert ask(door, "one").headers["x-litport-served-by"] == "two"
        wait_for(door, "one", "ready")
        assert "x-litport-served-by" not in ask(door, "one").headers


def test_the_fallback_answers_where_the_first_load_fails(tmp_path: Path) -> None:
    models = {"one": {"load": "on_demand", "fallback": "two"}, "two": {"load": "at_start"}}
    broken = TinyEngine("one", argv=["-c", "raise ValueError('no such weights')"])
    with open_door(tmp_path, broken, TinyEngine("two"), models=models) as door:
        answer = ask(door, "one")
        assert (answer.status_code, answer.headers["x-litport-served-by"]) == (200, "two")


def test_a_request_that_waits_for_the_first_load_counts_once_for_its_key(tmp_path: Path) -> None:
    keys = tmp_path / "keys.yaml"
    keys.write_text(f"guest: {{key: {'k' * 20}, requests_per_minute: 2, max_in_flight: 1}}\n")
    guest = {"authorization": f"Bearer {'k' * 20}"}
    with open_door(tmp_path, TinyEngine("one"), model=ON_DEMAND, auth={"keys_file": str(keys)}) as door:
        assert sorted(answer.status_code for answer in ask_at_once(door, 3, guest)) == [200, 429, 429]
        assert ask(door, "one", headers=guest).status_code == 200
        assert ask(door, "one", headers=guest).status_code == 429


def test_a_load_that_an_unload_ends_before_it_begins_is_followed_by_another(tmp_path: Path) -> None:
    with open_door(tmp_path, TinyEngine("one"), model=ON_DEMAND) as door:
        loader, model = door.platform.loader, door.supervisor.models["one"]

        async def load() -> None:
            unload = asyncio.create_task(loader.unload(model, "command"))
            await asyncio.sleep(0)
            loader.demand(model)
            await unload
            await loader.load(model)

        asyncio.run_coroutine_threadsafe(load(), door.loop).result(20)
        assert model.state is State.READY


@pytest.mark.long
def test_waiting_for_a_load_is_bounded_in_number_and_time(tmp_path: Path) -> None:
    sleeper = TinyEngine("one", argv=["-c", "import time; time.sleep(60)"])
    with open_door(tmp_path, sleeper, model={**ON_DEMAND, "max_waiting": 2}) as door:
        answers = ask_at_once(door, 5, headers={"x-request-timeout": "0.5"})
        assert sorted(answer.status_code for answer in answers) == [429, 429, 429, 504, 504]
        unload(door, "one")
        assert door.supervisor.models["one"].state is State.UNLOADED


@pytest.mark.long
def test_the_least_recently_used_model_makes_room_and_a_pinned_one_does_not(tmp_path: Path) -> None:
    engines = [TinyEngine(name, memory_bytes=HELD) for name in ("one", "two", "three")]
    budget = {"memory_budget_bytes": BUDGET}
    with open_door(tmp_path, *engines, model=ON_DEMAND, server=budget, models={"one": {"pin": True}}) as door:
        for name, states in (
            ("one", ["ready", "unloaded", "unloaded"]),
            ("two", ["ready", "ready", "unloaded"]),
            ("three", ["ready", "unloaded", "ready"]),
            ("two", ["ready", "ready", "unloaded"]),
        ):
            assert ask(door, name).status_code == 200
            status = door.client.get("/status").json()["models"]
            assert [model["state"] for model in status] == states
        assert [model["name"] for model in status if model["residence"]["next_out"]] == ["two"]
        assert [model["residence"]["unloads"]["room"] for model in status] == [0, 1, 1]


@pytest.mark.long
def test_models_on_one_gpu_make_room_for_each_other_and_what_can_never_fit_is_refused(tmp_path: Path) -> None:
    parts = {"stays": {"0": 0.3}, "one": {"0": 0.6}, "two": {"0": 0.6}, "apart": {"1": 0.9}, "large": {"0": 0.8}}
    engines = [TinyEngine(name, gpu_shares=shares) for name, shares in parts.items()]
    with open_door(tmp_path, *engines, model=ON_DEMAND, models={"stays": {"load": "at_start"}}) as door:
        for name in ("apart", "one", "two"):
            assert ask(door, name).status_code == 200
        states = {name: model.state for name, model in door.supervisor.models.items()}
        assert [name for name, state in states.items() if state is State.READY] == ["stays", "two", "apart"]
        message = ask(door, "large").json()["error"]["message"]
        assert "it takes 0.8 of GPU 0, too much beside stays 0.3, which stay" in message


@pytest.mark.long
def test_a_busy_model_makes_room_only_when_its_requests_have_ended(tmp_path: Path) -> None:
    engines = [TinyEngine(name, memory_bytes=HELD) for name in ("one", "two")]
    budget = {"memory_budget_bytes": BUDGET // 2}
    with (
        open_door(tmp_path, *engines, model=ON_DEMAND, server=budget) as door,
        ThreadPoolExecutor() as pool,
    ):
        ask(door, "one")
        slow = [pool.submit(ask, door, "one", wait_s=0.4) for _ in range(2)]
        wait_until(lambda: door.supervisor.models["one"].admission.running == 2)
        following = pool.submit(ask, door, "two")
        wait_until(lambda: door.supervisor.models["one"].state is State.DRAINING)
        held = pool.submit(ask, door, "one")
        assert {answer.result().status_code for answer in (*slow, following, held)} == {200}
        assert len({answer.result().json()["pid"] for answer in (*slow, held)}) == 2, "it came back for the last one"


@pytest.mark.long
def test_a_model_that_can_never_fit_is_refused_with_the_sum(tmp_path: Path) -> None:
    engines = [TinyEngine("one", memory_bytes=HELD), TinyEngine("two", memory_bytes=HELD)]
    models = {"one": {"load": "at_start"}}
    budget = {"memory_budget_bytes": BUDGET // 2}
    with open_door(tmp_path, *engines, model=ON_DEMAND, server=budget, models=models) as door:
        assert ask(door, "two").status_code == 200, "an estimate alone refuses nothing"
        unload(door, "two")
        message = ask(door, "two").json()["error"]["message"]
        assert "too much beside one (" in message
        assert "server.memory_budget_bytes" in message


def test_a_draining_platform_refuses_those_that_wait_for_a_load(tmp_path: Path) -> None:
    sleeper = TinyEngine("one", argv=["-c", "import time; time.sleep(60)"])
    with open_door(tmp_path, sleeper, model=ON_DEMAND) as door, ThreadPoolExecutor() as pool:
        answer = pool.submit(ask, door, "one")
        wait_until(lambda: door.supervisor.models["one"].choose().group_id)
        asyncio.run_coroutine_threadsafe(door.platform.drain(), door.loop).result(5)
        assert answer.result().json()["error"]["code"] == "shutting_down"
        order = door.app.revisions.make("scale", "one", b'{"replicas": 2}', "somebody")
        with pytest.raises(ApiError, match="shutting down"):
            asyncio.run_coroutine_threadsafe(order, door.loop).result(5)


def ask(
    door: Door, model: str, path: str = CHAT, headers: Mapping[str, str] | None = None, **body: Any
) -> httpx.Response:
    return httpx.post(f"{door.client.base_url}{path}", json={"model": model, **body}, headers=headers, timeout=30)


def ask_at_once(door: Door, count: int, headers: Mapping[str, str] | None = None) -> list[httpx.Response]:
    async def run() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=door.client.base_url, timeout=30, headers=headers) as client:
            requests = (client.post(CHAT, json={"model": "one"}) for _ in range(count))
            return list(await asyncio.gather(*requests))

    return asyncio.run(run())


def wait_for(door: Door, model: str, state: str) -> dict[str, Any]:
    def fitting() -> dict[str, Any] | None:
        status: list[dict[str, Any]] = door.client.get("/status").json()["models"]
        return next((entry for entry in status if (entry["name"], entry["state"]) == (model, state)), None)

    return wait_until(fitting)


def unload(door: Door, model: str) -> None:
    work = door.platform.loader.unload(door.supervisor.models[model], "command")
    asyncio.run_coroutine_threadsafe(work, door.loop).result(20)
