"""A process that lives and does not answer: stopped, or silent."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop

from servers.engines.base import Card, post
from servers.engines.connection import Connection
from servers.models.instance import State
from servers.models.model import Model
from servers.processes.group import ProcessGroup
from tests.services.polling import wait_until_async
from tests.services.supervision import group_of, supervising, wait_until_state
from tests.services.tiny_engine import TinyEngine

QUICK = {"canary_interval_s": 0.3, "canary_timeout_s": 1.0}


class MuteEngine(TinyEngine):
    """A tiny server that stops answering its canary once `mute` is set."""

    mute = False

    async def canary(self, connection: Connection, card: Card) -> None:
        if self.mute:
            await post(connection, "/predict", {"wait_s": 60})
        await super().canary(connection, card)


@pytest.mark.long
@pytest.mark.parametrize("victim", ["main", "worker"])
def test_a_stopped_process_is_found_and_replaced(tmp_path: Path, victim: str) -> None:
    async def run() -> Model:
        async with supervising(tmp_path, TinyEngine("one"), **QUICK) as supervisor:
            model = supervisor.models["one"]
            await wait_until_state(model, State.READY)
            worker = next(member for member in ProcessGroup(group_of(model)).members() if "tiny-worker" in member.title)
            os.kill(group_of(model) if victim == "main" else worker.pid, signal.SIGSTOP)
            await wait_until_async(lambda: model.restarts == 1)
            assert "stopped by a signal" in model.choose().detail or "has not answered" in model.choose().detail
            await wait_until_state(model, State.READY)
        return model

    asyncio.run(run())


def test_a_model_that_does_not_answer_its_canary_is_replaced(tmp_path: Path) -> None:
    async def run() -> None:
        engine = MuteEngine("one")
        async with supervising(tmp_path, engine, **QUICK) as supervisor:
            model = supervisor.models["one"]
            await wait_until_state(model, State.READY)
            engine.mute = True
            await wait_until_async(lambda: model.restarts == 1)
            assert "has not answered anything for" in model.choose().detail
            engine.mute = False
            await wait_until_state(model, State.READY)

    asyncio.run(run())


@pytest.mark.parametrize(
    "mistake", [IndexError("list index out of range"), TypeError("'NoneType'"), ValueError("no JSON")]
)
def test_an_answer_that_has_not_the_form_of_one_is_a_wrong_one(tmp_path: Path, mistake: Exception) -> None:
    class WrongEngine(TinyEngine):
        """Reads an answer that is none."""

        wrong = True

        async def canary(self, connection: Connection, card: Card) -> None:
            if self.wrong:
                raise mistake
            await super().canary(connection, card)

    async def run() -> None:
        engine = WrongEngine("one")
        async with supervising(tmp_path, engine, **QUICK) as supervisor:
            model = supervisor.models["one"]
            await wait_until_state(model, State.FAILED)
            words = (
                f"its first answer was wrong: it has not the form of an answer ({type(mistake).__name__}: {mistake})"
            )
            assert words in model.choose().detail
            engine.wrong = False
            supervisor.begin(model)
            await wait_until_state(model, State.READY)
            engine.wrong = True
            await wait_until_async(lambda: model.choose().deaths == 1)
            assert "the canary was answered wrongly: it has not the form" in model.choose().detail

    asyncio.run(run())


@pytest.mark.long
def test_a_model_whose_other_answers_move_is_not_taken_for_stuck(tmp_path: Path) -> None:
    async def run() -> None:
        engine = MuteEngine("one")
        async with supervising(tmp_path, engine, **QUICK) as supervisor:
            model = supervisor.models["one"]
            await wait_until_state(model, State.READY)
            engine.mute = True
            until_s = time.monotonic() + 3
            while time.monotonic() < until_s:
                model.choose().answered_at_s = time.monotonic()
                await asyncio.sleep(0.05)
            assert model.restarts == 0

    asyncio.run(run())


@pytest.mark.long
@pytest.mark.parametrize("work", [{"burn_s": 0.5}, {"processes_burn_s": [0.2] * 4}], ids=["itself", "a compiler"])
def test_a_model_that_computes_or_waits_for_a_processor_is_not_taken_for_stuck(
    work: dict[str, object], tmp_path: Path
) -> None:
    """A long request that needs half a second of a core or more, of which it gets a fifth."""

    async def run() -> None:
        async with supervising(tmp_path, TinyEngine("one"), canary_interval_s=0.1, canary_timeout_s=1) as supervisor:
            model = supervisor.models["one"]
            await wait_until_state(model, State.READY)
            connection = model.choose().connection
            assert connection is not None
            with _one_core_shared_with(4, ProcessGroup(group_of(model))):
                begin_s = time.monotonic()
                await post(connection, "/predict", work)
                assert time.monotonic() - begin_s > 1  # else the test shows nothing
            assert (model.restarts, model.choose().canaries["failed"]) == (0, 0)

    asyncio.run(run())


@contextlib.contextmanager
def _one_core_shared_with(count: int, group: ProcessGroup) -> Iterator[None]:
    """Bind the group to one core, and so many processes that keep it busy."""
    core = {min(os.sched_getaffinity(0))}
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True) for _ in range(count)]
    try:
        for pid in [*(process.pid for process in busy), *(member.pid for member in group.members())]:
            os.sched_setaffinity(pid, core)
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


@pytest.mark.long
def test_a_pause_of_the_supervisor_is_not_taken_for_a_silence_of_the_model(tmp_path: Path) -> None:
    class SlowEngine(TinyEngine):
        asked = 0

        async def canary(self, connection: Connection, card: Card) -> None:
            self.asked += 1
            await post(connection, "/predict", {"wait_s": 0.6})

    async def run() -> None:
        engine = SlowEngine("one")
        async with supervising(tmp_path, engine, **QUICK) as supervisor:
            model = supervisor.models["one"]
            await wait_until_state(model, State.READY)
            asked = engine.asked
            await wait_until_async(lambda: engine.asked > asked)
            time.sleep(3)  # noqa: ASYNC251 # what SIGSTOP and a suspended host do to the loop
            answered = model.choose().canaries["ok"]
            await wait_until_async(lambda: model.choose().canaries["ok"] >= answered + 2)
            assert (model.restarts, model.choose().canaries["failed"]) == (0, 0)

    uvloop.run(run())  # as the platform; it runs late timers before it reads


def test_a_canary_whose_kept_connection_was_closed_is_sent_again(tmp_path: Path) -> None:
    class LosingEngine(TinyEngine):
        losses = 0

        async def canary(self, connection: Connection, card: Card) -> None:
            if self.losses:
                self.losses -= 1
                raise ConnectionResetError
            await super().canary(connection, card)

    async def run() -> None:
        engine = LosingEngine("one")
        async with supervising(tmp_path, engine, **QUICK) as supervisor:
            model = supervisor.models["one"]
            await wait_until_state(model, State.READY)
            engine.losses = 1
            answered = model.choose().canaries["ok"]
            await wait_until_async(lambda: model.choose().canaries["ok"] >= answered + 2)
            assert (model.restarts, engine.losses) == (0, 0)
            engine.losses = 2
            await wait_until_async(lambda: model.restarts == 1)
            assert "was not answered: ConnectionResetError" in model.choose().detail

    asyncio.run(run())


def test_without_an_interval_nobody_asks(tmp_path: Path) -> None:
    async def run() -> None:
        engine = MuteEngine("one")
        async with supervising(tmp_path, engine, canary_interval_s=None, canary_timeout_s=0.2) as supervisor:
            model = supervisor.models["one"]
            await wait_until_state(model, State.READY)
            engine.mute = True
            await asyncio.sleep(1.5)
            assert (model.state, model.restarts) == (State.READY, 0)

    asyncio.run(run())
