"""Batches, cancelling, and workers that are replaced."""

import asyncio
import gc
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from servers.engines.litserve.host.answer import HostRequest, NoWorkerError, Policy, QueueTimeoutError, WorkerDiedError
from servers.processes.group import ProcessGroup
from servers.processes.proc import cpu_s, stopped_pids
from tests.servers.engines.litserve.child import STRANGERS
from tests.servers.engines.litserve.host.hosted import Hosted, run_hosted, whole
from tests.services.polling import wait_until_async

_BATCHES = f"{STRANGERS}/batches.py:BatchesAPI"
_DIES = f"{STRANGERS}/dies.py:DiesAPI"


def test_the_echo_is_served_and_says_what_it_takes(tmp_path: Path) -> None:
    async def use(host: Hosted) -> None:
        answer = await host.predict(input=[1, "a"])
        assert answer.json() == {"output": [1, "a"]}
        assert answer.content_type == "application/json"
        steps = answer.response.steps
        assert steps is not None
        assert steps.batch_size == 1
        spent = (steps.receive_s, steps.queue_s, steps.batch_wait_s, steps.decode_s, steps.predict_s, steps.encode_s)
        assert all(0 <= step_s < 1 for step_s in spent)
        assert host.card["example"] == {"input": "canary"}
        assert list(host.card["openapi"]["paths"]) == ["/predict"]
        totals = host.dispatcher.totals
        assert (totals.requests, totals.batch_sizes) == (1, {1: 1})
        assert totals.seconds["predict"] == steps.predict_s

    run_hosted(tmp_path, use, api="echo")


def test_one_request_waits_for_nobody_and_a_busy_model_fills_its_batches(tmp_path: Path) -> None:
    async def use(host: Hosted) -> None:
        begin_s = time.monotonic()
        first = asyncio.create_task(host.predict(input=0))
        await asyncio.sleep(0.05)
        others = await asyncio.gather(*(host.predict(input=item) for item in range(1, 10)))
        assert [answer.json()["output"] for answer in others] == list(range(1, 10))
        assert [answer.json()["batch"] for answer in others] == [4] * 8 + [1]
        assert (await first).json()["batch"] == 1
        assert time.monotonic() - begin_s < 4 * 0.2 + 0.5

    run_hosted(tmp_path, use, api=_BATCHES, max_batch_size=4)


def test_with_a_batch_timeout_an_idle_worker_waits_for_company(tmp_path: Path) -> None:
    async def use(host: Hosted) -> None:
        first = asyncio.create_task(host.predict(input=0))
        await asyncio.sleep(0.1)
        second = await host.predict(input=1)
        assert ((await first).json()["batch"], second.json()["batch"]) == (2, 2)
        steps = (await first).response.steps
        assert steps is not None
        assert steps.batch_wait_s == pytest.approx(0.3, abs=0.1)
        full = await asyncio.gather(*(host.predict(input=item) for item in range(4)))
        assert {answer.json()["batch"] for answer in full} == {4}

    run_hosted(tmp_path, use, api=_BATCHES, policy=Policy("m", batch_timeout_s=0.3), max_batch_size=4)


def test_each_worker_of_a_model_takes_requests(tmp_path: Path) -> None:
    async def use(host: Hosted) -> None:
        begun = [tmp_path / f"begun{number}" for number in range(2)]
        bodies = [{"name": "x", "begun": str(file), "how": f"until {tmp_path / 'go'}"} for file in begun]
        answers = [asyncio.create_task(host.post(body)) for body in bodies]
        await wait_until_async(lambda: all(file.exists() for file in begun))
        (tmp_path / "go").touch()
        assert {(await answer).json()["pid"] for answer in answers} == set(host.dispatcher.pids())

    run_hosted(tmp_path, use, api=f"{STRANGERS}/slow.py:SlowAPI", workers_per_device=2)


@pytest.mark.parametrize(
    "how", ["busy", pytest.param("asleep", marks=pytest.mark.long), pytest.param("deaf", marks=pytest.mark.long)]
)
@pytest.mark.parametrize(
    ("api", "settings"),
    [
        ("SlowAPI", {}),
        ("SlowBatchesAPI", {"max_batch_size": 2}),
        ("SlowStreamBatchesAPI", {"max_batch_size": 2, "stream": True}),
        ("SlowStreamAPI", {"stream": True}),
    ],
)
def test_work_that_nobody_waits_for_is_left_at_once(
    tmp_path: Path, api: str, settings: dict[str, Any], how: str
) -> None:
    async def use(host: Hosted) -> None:
        (pid,) = host.dispatcher.pids()
        request = json.dumps({"name": "first", "begun": str(tmp_path / "begun"), "how": how}).encode()

        async def ask() -> None:
            response = await host.dispatcher.send(HostRequest("r", "application/json", request))
            try:
                await whole(response)
            finally:
                if response.parts is not None:
                    response.parts.close()

        work = asyncio.create_task(ask())
        await wait_until_async((tmp_path / "begun").exists)
        queued = asyncio.create_task(ask())
        await asyncio.sleep(0.05)
        queued.cancel()
        work.cancel()
        begin_s = time.monotonic()
        answer = await host.predict(name="second", begun=str(tmp_path / "second"), how="now")
        assert time.monotonic() - begin_s < 2
        assert answer.status == 200
        assert host.dispatcher.pids() == [pid]
        if api in ("SlowAPI", "SlowBatchesAPI"):
            assert answer.json()["seen"] == ["first", "second"]

    run_hosted(tmp_path, use, api=f"{STRANGERS}/slow.py:{api}", **settings)


def test_a_worker_that_does_not_leave_its_work_is_replaced_and_the_other_goes_on(tmp_path: Path) -> None:
    async def use(host: Hosted) -> None:
        before = set(host.dispatcher.pids())
        stuck = asyncio.create_task(host.predict(name="x", begun=str(tmp_path / "b"), how="native"))
        await wait_until_async((tmp_path / "b").exists)
        stuck.cancel()
        for number in range(5):
            answer = await host.predict(name=str(number), begun=str(tmp_path / "n"), how="now")
            assert answer.json()["pid"] in before
        await wait_until_async(lambda: len(host.dispatcher.pids()) == 2 and set(host.dispatcher.pids()) != before)
        assert len(before & set(host.dispatcher.pids())) == 1
        assert "was killed by SIGKILL" in host.log

    run_hosted(
        tmp_path, use, api=f"{STRANGERS}/slow.py:SlowAPI", policy=Policy("m", cancel_grace_s=0.5), workers_per_device=2
    )


def test_a_workers_death_fails_what_it_had_begun_and_nothing_that_waited(tmp_path: Path) -> None:
    async def use(host: Hosted) -> None:
        fatal, *others = await asyncio.gather(
            host.predict(input="out of memory"),
            *(host.predict(input=item) for item in range(3)),
            return_exceptions=True,
        )
        assert isinstance(fatal, WorkerDiedError)
        assert [answer.json()["output"] for answer in others] == [0, 1, 2]  # type: ignore[union-attr]
        await wait_until_async(lambda: host.dispatcher.restarts == 1)

    run_hosted(tmp_path, use, api=_DIES)


@pytest.mark.long
def test_a_worker_at_rest_that_answers_no_ping_is_replaced_and_the_other_goes_on(tmp_path: Path) -> None:
    async def use(host: Hosted) -> None:
        assert await host.dispatcher.ping()
        stopped, well = host.dispatcher.pids()
        os.kill(stopped, signal.SIGSTOP)
        await wait_until_async(lambda: stopped_pids([stopped]))
        assert await host.dispatcher.ping(), "it is replaced, and the other is well"
        await wait_until_async(lambda: host.dispatcher.is_complete and host.dispatcher.restarts == 1)
        assert stopped not in host.dispatcher.pids()
        assert well in host.dispatcher.pids()
        assert await host.dispatcher.ping()

    run_hosted(tmp_path, use, policy=Policy("m", ping_timeout_s=0.5), api="echo", workers_per_device=2)


@pytest.mark.long
def test_a_worker_that_dies_again_and_again_without_an_answer_ends_the_host(tmp_path: Path) -> None:
    async def use(host: Hosted) -> None:
        for _ in range(2):
            with pytest.raises(WorkerDiedError):
                await host.predict(input="out of memory")
        assert (await host.predict(input=1)).status == 200
        for _ in range(3):
            with pytest.raises(WorkerDiedError):
                await host.predict(input="out of memory")
        with pytest.raises(NoWorkerError):
            await host.predict(input=1)
        assert await asyncio.to_thread(host.process.wait, 10) == 3
        assert "was killed by SIGKILL, again after 2 restarts without an answer" in host.log
        assert host.dispatcher.restarts == 4

    run_hosted(tmp_path, use, api=_DIES, max_restarts=2)


@pytest.mark.long
def test_a_request_that_waits_longer_than_its_deadline_is_not_worked_on(tmp_path: Path) -> None:
    async def use(host: Hosted) -> None:
        work = asyncio.create_task(host.predict(input=0))
        await asyncio.sleep(0.05)
        late = HostRequest("r", "application/json", b'{"input": 9}', deadline_s=time.monotonic() + 0.1)
        begin_s = time.monotonic()
        with pytest.raises(QueueTimeoutError):
            await host.dispatcher.send(late)
        assert time.monotonic() - begin_s == pytest.approx(0.1, abs=0.05)
        assert (await work).json() == {"output": 0, "batch": 1}

    run_hosted(tmp_path, use, api=_BATCHES, max_batch_size=2)


@pytest.mark.long
def test_at_rest_no_process_runs(tmp_path: Path) -> None:
    async def use(host: Hosted) -> None:
        await host.predict(input=1)
        await asyncio.sleep(0.5)
        pids = [member.pid for member in ProcessGroup(host.process.pid).members()]
        before_s = cpu_s(pids)
        await asyncio.sleep(2)
        assert cpu_s(pids) - before_s <= 0.01

    run_hosted(tmp_path, use, api=_BATCHES, max_batch_size=8)


@pytest.mark.long
def test_a_request_leaves_no_cycle_to_either_ends_collector(tmp_path: Path) -> None:
    (tmp_path / "garbage.py").write_text(
        "import gc\nimport litserve\n\n"
        "class GarbageAPI(litserve.LitAPI):\n"
        "    def setup(self, device): gc.disable()\n"
        "    def predict(self, request): return gc.collect()\n"
    )

    async def use(host: Hosted) -> None:
        await host.predict(input=1)
        gc.collect()
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            assert (await host.predict(input=2)).json() == 0
            gc.collect()
            assert [value for value in gc.garbage if type(value).__module__.startswith("servers.")] == []
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()

    run_hosted(tmp_path, use, api=f"{tmp_path}/garbage.py:GarbageAPI")


@pytest.mark.long
def test_large_bodies_go_both_ways(tmp_path: Path) -> None:
    async def use(host: Hosted) -> None:
        value = "x" * 5_000_000
        large = [asyncio.create_task(host.predict(input=value)) for _ in range(3)]
        small = await host.predict(input=1)
        assert small.json() == {"output": 1}
        for answer in large:
            assert (await answer).json() == {"output": value}

    run_hosted(tmp_path, use, api="echo")


@pytest.mark.long
def test_a_slow_reader_holds_back_its_stream_and_costs_bounded_memory(tmp_path: Path) -> None:
    async def use(host: Hosted) -> None:
        body = {"name": "x", "begun": str(tmp_path / "b"), "how": "endless"}
        response = await host.dispatcher.send(HostRequest("r", "application/json", json.dumps(body).encode()))
        parts = response.parts
        assert parts is not None
        await wait_until_async(lambda: sum(map(len, parts._chunks)) > 1_000_000)
        await asyncio.sleep(0.3)
        assert sum(map(len, parts._chunks)) < 1_200_000
        taken = 0
        async for part in parts:
            taken += len(part)
            if taken > 5_000_000:
                break
        parts.close()
        assert (await host.predict(name="y", begun=str(tmp_path / "c"), how="now")).status == 200

    run_hosted(tmp_path, use, api=f"{STRANGERS}/slow.py:SlowStreamAPI", stream=True)
