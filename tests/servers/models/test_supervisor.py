"""What the supervisor promises, against real child processes."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import Mock

import pytest

from servers.models import start
from servers.models.instance import Instance, State
from servers.models.model import Model
from servers.models.supervisor import Supervisor
from servers.processes.group import Member, ProcessGroup
from tests.services.polling import wait_until, wait_until_async
from tests.services.supervision import group_of, model_of, supervising, wait_until_state
from tests.services.tiny_engine import TinyEngine


def test_a_model_becomes_ready_only_after_its_canary_came_back(tmp_path: Path) -> None:
    async def run() -> None:
        async with supervising(tmp_path, TinyEngine("one")) as supervisor:
            model = supervisor.models["one"]
            assert not supervisor.ready
            await wait_until_state(model, State.READY)
            assert supervisor.ready
            assert set(model.choose().phases_s) == {"load", "warm"}
        assert model.state is State.STOPPED

    asyncio.run(run())


@pytest.mark.parametrize("victim", ["main", "worker"])
def test_a_killed_process_is_noticed_at_once_and_the_model_comes_back(tmp_path: Path, victim: str) -> None:
    async def run() -> None:
        async with supervising(tmp_path, TinyEngine("one"), TinyEngine("two")) as supervisor:
            one, two = supervisor.models.values()
            await wait_until_async(lambda: supervisor.ready)
            group_id = group_of(one)
            worker = next(member for member in ProcessGroup(group_id).members() if "tiny-worker" in member.title)
            begin = time.monotonic()
            os.kill(group_id if victim == "main" else worker.pid, signal.SIGKILL)
            await wait_until_async(lambda: one.state is not State.READY)
            assert time.monotonic() - begin < 2
            assert two.state is State.READY
            await wait_until_state(one, State.READY)
            assert one.restarts == 1
            assert not ProcessGroup(group_id).members(), "the rest of the broken tree is gone"

    asyncio.run(run())


def test_a_model_that_never_came_up_is_not_tried_again_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"OMP_NUM_THREADS": "0", "VLLM_SOMETHING": "1", "VLLM_API_KEY": "k", "VLLM_TOKEN": "t"}.items():
        monkeypatch.setenv(name, value)
    broken = TinyEngine("one", argv=["-c", "raise ValueError('no such weights')"])

    async def run() -> Model:
        async with supervising(tmp_path, broken) as supervisor:
            await asyncio.wait_for(supervisor.fatal.wait(), 20)
            return supervisor.models["one"]

    model = asyncio.run(run())
    assert model.state is State.FAILED
    detail = model.choose().detail
    assert "ValueError: no such weights" in detail
    assert detail.endswith("(set in the environment: OMP_NUM_THREADS='0', VLLM_SOMETHING='1', VLLM_TOKEN=**********)")
    assert model.restarts == 0


def test_a_model_that_keeps_breaking_is_given_up_after_its_restarts(tmp_path: Path) -> None:
    async def run() -> None:
        async with supervising(tmp_path, TinyEngine("one"), max_restarts=1, required=False) as supervisor:
            model = supervisor.models["one"]
            for _ in range(2):
                await wait_until_state(model, State.READY)
                os.kill(group_of(model), signal.SIGKILL)
                await wait_until_async(lambda: model.state is not State.READY)
            await wait_until_state(model, State.FAILED)
            assert "failed again after 1 restarts" in model.choose().detail
            assert not supervisor.fatal.is_set(), "it was not required"

    asyncio.run(run())


def test_a_start_that_takes_too_long_fails_with_the_setting_to_change(tmp_path: Path) -> None:
    sleeper = TinyEngine("one", argv=["-c", "import time; time.sleep(60)"])

    async def run() -> Model:
        async with supervising(tmp_path, sleeper, start_timeout_s=0.3) as supervisor:
            await asyncio.wait_for(supervisor.fatal.wait(), 20)
            return supervisor.models["one"]

    assert "not ready within 0.3 s (start_timeout_s)" in asyncio.run(run()).choose().detail


def test_a_model_that_loads_and_does_not_hear_sigterm_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "_LOADING_GRACE_S", 0.2)
    deaf = "import signal, sys, time; signal.signal(15, signal.SIG_IGN); open(sys.argv[1] + '.up', 'w'); time.sleep(60)"

    async def run() -> float:
        async with supervising(tmp_path, TinyEngine("one", argv=["-c", deaf])):
            await wait_until_async((tmp_path / "run" / "0.sock.up").exists)
            begin_s = time.monotonic()
        return time.monotonic() - begin_s

    assert asyncio.run(run()) < 5


def test_when_the_supervisor_is_killed_the_reaper_leaves_nothing(tmp_path: Path) -> None:
    script = f"""
import asyncio
from pathlib import Path
from tests.services.polling import wait_until_async
from tests.services.supervision import group_of, supervising
from tests.services.tiny_engine import TinyEngine

async def run():
    async with supervising(Path({str(tmp_path)!r}), TinyEngine("one"), TinyEngine("two")) as supervisor:
        await wait_until_async(lambda: supervisor.ready)
        print(*(group_of(model) for model in supervisor.models.values()), flush=True)
        await asyncio.sleep(60)

asyncio.run(run())
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout is not None
        groups = [int(word) for word in supervisor.stdout.readline().split()]
        assert all(ProcessGroup(group_id).members() for group_id in groups)
        supervisor.kill()

    def alive() -> list[Member]:
        return [member for group_id in groups for member in ProcessGroup(group_id).members()]

    wait_until(lambda: not alive() and not (tmp_path / "run").exists(), 5, problem=lambda: f"left behind: {alive()}")


def test_a_killed_reaper_is_replaced(tmp_path: Path) -> None:
    async def run() -> None:
        async with supervising(tmp_path, TinyEngine("one")) as supervisor:
            model = supervisor.models["one"]
            await wait_until_state(model, State.READY)
            reaper = supervisor._reaper._process
            reaper.kill()
            reaper.wait()
            os.kill(group_of(model), signal.SIGKILL)  # its end and its restart must be told to a reaper
            await wait_until_async(lambda: model.restarts == 1 and model.state is State.READY)
            assert supervisor._reaper._process.poll() is None

    asyncio.run(run())


def test_a_mistake_of_the_supervisors_own_fails_the_model_instead_of_leaving_it_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(TinyEngine, "needs", broken)

    async def run() -> Model:
        async with supervising(tmp_path, TinyEngine("one")) as supervisor:
            await asyncio.wait_for(supervisor.fatal.wait(), 20)
            return supervisor.models["one"]

    assert asyncio.run(run()).state is State.FAILED


def test_one_elsewhere_that_was_given_up_is_asked_again_once_another_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost, back = (Instance(tmp_path / name, tmp_path / "log", address=f"http://{name}:1") for name in ("a", "b"))
    lost.state = State.FAILED
    model = model_of(TinyEngine("one"), lost, back)
    supervisor = Supervisor({"one": model}, tmp_path, Mock(), lambda _: None)
    begun: list[Model] = []
    monkeypatch.setattr(supervisor, "begin", begun.append)
    supervisor._welcome(model, back)
    assert begun == [model]
