"""Clients that leave: what they asked for is not done, and nobody else notices."""

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from servers.engines.litserve.connection import ApiConnection
from servers.engines.litserve.host.answer import Policy
from servers.processes.group import ProcessGroup
from tests.servers.conftest import Serve
from tests.servers.engines.litserve.child import STRANGERS, Child, await_that, running

SLOW = f"{STRANGERS}/slow.py"
# What is left takes 60 s; a machine that does other things may take long to leave it.
SOON_S = 15


@pytest.mark.parametrize("how", ["asleep", "busy", "deaf"])
def test_a_predict_is_left_when_its_client_leaves_and_its_worker_goes_on(
    serve: Serve, tmp_path: Path, how: str
) -> None:
    child = serve(api=f"{SLOW}:SlowAPI")
    before = child.predict(**_request(tmp_path, "before")).json()
    _ask_and_leave(child, _request(tmp_path, "left", how))
    begin_s = time.monotonic()
    after = child.predict(**_request(tmp_path, "after")).json()
    assert time.monotonic() - begin_s < SOON_S
    assert after == {"pid": before["pid"], "seen": [*before["seen"], "left", "after"]}
    _await_rest(child)


def test_a_queued_request_is_not_predicted_once_its_client_has_left(serve: Serve, tmp_path: Path) -> None:
    child = serve(api=f"{SLOW}:SlowAPI")
    gate = tmp_path / "gate"
    with ThreadPoolExecutor() as pool:
        first = pool.submit(child.predict, **_request(tmp_path, "first", f"until {gate}"))
        _await((tmp_path / "first").exists, child)
        with child.asked(**_request(tmp_path, "left")):
            kept = pool.submit(child.predict, **_request(tmp_path, "kept"))
            time.sleep(0.5)  # so both are queued
        gate.touch()
        assert first.result().status_code == 200
        names = kept.result().json()["seen"]
    assert names[-2:] == ["first", "kept"]
    _await_rest(child)


@pytest.mark.parametrize("how", ["asleep", "busy", "endless"])
def test_a_stream_ends_when_its_client_leaves(serve: Serve, tmp_path: Path, how: str) -> None:
    child = serve(api=f"{SLOW}:SlowStreamAPI", stream=True)
    pid = json.loads(child.predict(**_request(tmp_path, "before")).text)["pid"]
    _ask_and_leave(child, _request(tmp_path, "left", how))
    begin_s = time.monotonic()
    assert json.loads(child.predict(**_request(tmp_path, "after")).text) == {"pid": pid}
    assert time.monotonic() - begin_s < SOON_S
    _await_rest(child)


@pytest.mark.parametrize(
    ("name", "stream"), [("SlowBatchesAPI", None), pytest.param("SlowStreamBatchesAPI", True, marks=pytest.mark.long)]
)
def test_a_batch_goes_on_for_those_that_stay_and_is_left_when_none_does(
    serve: Serve, tmp_path: Path, name: str, stream: bool | None
) -> None:
    child = serve(api=f"{SLOW}:{name}", max_batch_size=2, batch_timeout=2, stream=stream)
    gate = tmp_path / "gate"
    with ThreadPoolExecutor() as pool:
        with child.asked(**_request(tmp_path, "left")):
            time.sleep(0.2)  # so it is the first of its batch
            stays = pool.submit(child.predict, **_request(tmp_path, "stays", f"until {gate}"))
            _await((tmp_path / "stays").exists, child)
        time.sleep(0.2)  # in which the worker has heard of it
        gate.touch()
        answer = stays.result().json()
    if not stream:
        assert (answer["name"], answer["size"]) == ("stays", 2)
    with child.asked(**_request(tmp_path, "one")), child.asked(**_request(tmp_path, "two", "asleep")):
        _await((tmp_path / "two").exists, child)
    begin_s = time.monotonic()
    with child.asked(**_request(tmp_path, "beside")):  # so its batch is full, and waits for nobody
        assert child.predict(**_request(tmp_path, "after")).json()["pid"] == answer["pid"]
    assert time.monotonic() - begin_s < SOON_S


@pytest.mark.long
def test_an_embedding_is_left_when_its_client_leaves(serve: Serve, tmp_path: Path) -> None:
    child = serve(api=f"{SLOW}:SlowEmbeddingsAPI")

    def body(name: str, how: str = "") -> dict[str, Any]:
        return {"model": "m", "input": f"{tmp_path / name} {how}", "begun": str(tmp_path / name)}

    before = child.predict(**body("before")).json()["data"]
    _ask_and_leave(child, body("left", "asleep"))
    begin_s = time.monotonic()
    assert child.predict(**body("after")).json()["data"] == before
    assert time.monotonic() - begin_s < SOON_S
    _await_rest(child)


@pytest.mark.long
def test_several_workers_leave_only_what_is_cancelled(serve: Serve, tmp_path: Path) -> None:
    child = serve(api=f"{SLOW}:SlowAPI", workers_per_device=2)
    gate = tmp_path / "gate"
    with ThreadPoolExecutor() as pool:
        stays = pool.submit(child.predict, **_request(tmp_path, "stays", f"until {gate}"))
        _await((tmp_path / "stays").exists, child)
        for turn in range(3):
            _ask_and_leave(child, _request(tmp_path, f"left {turn}", "asleep"))
        after = child.predict(**_request(tmp_path, "after")).json()
        gate.touch()
        stayed = stays.result().json()
    assert stayed["seen"][-1] == "stays"
    assert after["seen"] == ["left 0", "left 1", "left 2", "after"]
    assert after["pid"] != stayed["pid"]
    _await_rest(child)


@pytest.mark.long
def test_an_async_apis_running_work_is_left_and_the_work_beside_it_goes_on(serve: Serve, tmp_path: Path) -> None:
    child = serve(api=f"{SLOW}:SlowAsyncAPI")
    gate = tmp_path / "gate"
    with ThreadPoolExecutor() as pool:
        stays = pool.submit(child.predict, **_request(tmp_path, "stays", f"until {gate}"))
        _await((tmp_path / "stays").exists, child)
        _ask_and_leave(child, _request(tmp_path, "left", f"until {gate}"))
        assert child.predict(**_request(tmp_path, "beside")).json()["seen"] == ["beside"]
        gate.touch()
        assert stays.result().json()["seen"] == ["beside", "stays"]
    _await_rest(child)
    assert child.predict(**_request(tmp_path, "after")).json()["seen"] == ["beside", "stays", "after"]


@pytest.mark.long
def test_work_that_does_not_yield_ends_its_worker_after_the_grace(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with running(tmp_path, Policy("m", cancel_grace_s=0.5), api=f"{SLOW}:SlowAPI") as child:
        pid = child.predict(**_request(tmp_path, "before")).json()["pid"]
        _ask_and_leave(child, _request(tmp_path, "left", "native"))
        _await(lambda: pid not in {member.pid for member in ProcessGroup(child.process.pid).members()}, child)
        assert child.predict(**_request(tmp_path, "after")).json()["seen"] == ["after"]
        assert f"worker 0 (process {pid}) was killed by SIGKILL" in child.log_file.read_text()
    line = f"m: worker process {pid} is killed: its work went on for 0.5 s after its request was cancelled"
    assert f"{line} (cancel_grace_s)" in caplog.messages


def _request(folder: Path, name: str, how: str = "") -> dict[str, Any]:
    return {"name": name, "begun": str(folder / name), "how": how}


def _ask_and_leave(child: Child, body: dict[str, Any]) -> None:
    """Leave once the predict has begun."""
    with child.asked(**body):
        _await(Path(body["begun"]).exists, child)


def _await_rest(child: Child) -> None:
    connection = child.line.connection
    assert isinstance(connection, ApiConnection)
    _await(lambda: connection.is_at_rest, child)


def _await(happened: Callable[[], bool], child: Child) -> None:
    await_that(happened, child.process, child.log_file)
