"""How a host starts and ends."""

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest

from servers.engines.litserve.host.answer import HostRequest
from servers.processes.group import ProcessGroup
from tests.servers.engines.litserve.child import STRANGERS, end, launch
from tests.servers.engines.litserve.host.hosted import Hosted, run_hosted, whole
from tests.services.polling import wait_until_async


@pytest.mark.parametrize("name", ["BrokenAPI", "DyingAPI", pytest.param("LeavingAPI", marks=pytest.mark.long)])
def test_a_worker_that_ends_in_setup_ends_the_host_at_once(tmp_path: Path, name: str) -> None:
    words = {
        "BrokenAPI": "worker 0 (process {}) ended with status 3 in setup()",
        "DyingAPI": "worker 0 (process {}) was killed by SIGKILL in setup()",
        "LeavingAPI": "worker 0 (process {}) ended with status 7 in setup()",
    }[name]
    process, log_file = launch(tmp_path, api=f"{STRANGERS}/broken.py:{name}")
    try:
        assert process.wait(20) == 3
        assert words.partition("{}")[2] in log_file.read_text()
    finally:
        end(process)


def test_a_setup_that_takes_too_long_ends_the_host(tmp_path: Path) -> None:
    process, log_file = launch(tmp_path, api=f"{STRANGERS}/broken.py:StubbornAPI", start_timeout_s=0.5)
    try:
        assert process.wait(20) == 3
        assert "worker 0 was not set up within 0.5 s" in log_file.read_text()
    finally:
        end(process)


def test_an_api_that_cannot_be_pickled_is_made_again_in_its_worker(tmp_path: Path) -> None:
    async def use(host: Hosted) -> None:
        assert (await host.predict(input=4)).json() == 8

    run_hosted(tmp_path, use, api=f"{STRANGERS}/documented.py:UnpicklableAPI")


def test_an_apis_own_health_is_that_of_its_worker_and_devices_without_effect_are_told(tmp_path: Path) -> None:
    async def use(host: Hosted) -> None:
        assert await host.dispatcher.ping()
        assert "warning: m: devices=2 has no effect on a CPU" in host.log

    run_hosted(tmp_path, use, api=f"{STRANGERS}/careless.py:StatefulHealthAPI", accelerator="cpu", devices=2)


def test_an_api_that_the_host_cannot_run_is_an_error_where_the_host_is_asked_for(tmp_path: Path) -> None:
    process, log_file = launch(tmp_path, api=f"{STRANGERS}/broken.py:OwnLoopAPI", serving="host")
    assert process.wait(20) == 3
    (line,) = log_file.read_text().splitlines()
    assert line.startswith("litserve_main: error: api ")
    assert line.endswith("the worker host cannot run it: its loop OwnLoop is not LitServe's; remove `serving: host`")


def test_a_broken_import_is_one_line_and_status_3(tmp_path: Path) -> None:
    process, log_file = launch(tmp_path, api="no_such_module:API")
    assert process.wait(20) == 3
    assert log_file.read_text().splitlines()[-1].startswith("litserve_main: error: api 'no_such_module:API'")


def test_sigterm_lets_a_worker_finish_what_it_has(tmp_path: Path) -> None:
    async def use(host: Hosted) -> None:
        stream = await host.dispatcher.send(HostRequest("r", "application/json", b'{"from": 4, "pause_s": 0.2}'))
        os.killpg(host.process.pid, signal.SIGTERM)
        answer = await whole(stream)
        assert [json.loads(line)["number"] for line in answer.body.splitlines()] == [4, 3, 2, 1]
        assert answer.broken is None
        assert await asyncio.to_thread(host.process.wait, 10) == 0
        await wait_until_async(lambda: not ProcessGroup(host.process.pid).members())
        assert not (tmp_path / "m.sock.0").exists()

    run_hosted(tmp_path, use, api=f"{STRANGERS}/streams.py:CountdownAPI", stream=True)


def test_nothing_is_left_when_the_main_process_is_killed(tmp_path: Path) -> None:
    async def use(host: Hosted) -> None:
        os.kill(host.process.pid, signal.SIGKILL)
        await asyncio.to_thread(host.process.wait, 10)
        await wait_until_async(lambda: not ProcessGroup(host.process.pid).members())

    run_hosted(tmp_path, use, api="echo")
