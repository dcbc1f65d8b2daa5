"""How the platform ends: with streams in flight, by force, by a kill, and before it has begun."""

import json
import os
import re
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from servers.processes.group import ProcessGroup
from tests.conftest import LITPORT, REPOSITORY, Platform, litport, serving
from tests.services.polling import wait_until
from tests.services.ports import port_in_use

CHAT = "smollm2-135m-instruct"
TOKENS = 100


def test_on_sigterm_streams_finish_and_nothing_is_left(platform: Platform) -> None:
    """The last test of the shared platform: it stops it."""
    groups = [status["group_id"] for status in platform.status().values()]
    texts: list[str] = []
    begun = threading.Barrier(5)

    def stream() -> None:
        body = {"model": CHAT, "prompt": "Once", "max_tokens": TOKENS, "ignore_eos": True, "stream": True}
        body["stream_options"] = {"include_usage": True}  # an event may hold several tokens
        with platform.http.stream("POST", "/v1/completions", json=body, timeout=120) as answer:
            parts = answer.iter_text()
            first = next(parts)
            begun.wait(timeout=60)
            texts.append(first + "".join(parts))

    threads = [threading.Thread(target=stream) for _ in range(4)]
    for thread in threads:
        thread.start()
    begun.wait(timeout=60)
    platform.process.send_signal(signal.SIGTERM)
    body = {"model": CHAT, "prompt": "x", "max_tokens": 1}
    # A request can be faster than the signal: what counts is that new ones are rejected while the streams go on.
    wait_until(lambda: platform.http.post("/v1/completions", json=body, timeout=10).status_code == 503, 5)
    assert any(thread.is_alive() for thread in threads)
    for thread in threads:
        thread.join()
    assert platform.process.wait(timeout=30) == 0
    assert len(texts) == len(threads)
    assert all(text.endswith("data: [DONE]\n\n") and f'"completion_tokens":{TOKENS}' in text for text in texts), texts
    assert not [member for group in groups if isinstance(group, int) for member in ProcessGroup(group).members()]


def test_a_port_in_use_is_told_before_any_model_is_started() -> None:
    with port_in_use() as port:
        begin = time.monotonic()
        ports = ("--server.port", str(port), "--telemetry.metrics_port", str(port))
        ended = litport("serve", "configs/recipes/demo.yaml", *ports)
    assert ended.returncode == 2
    lines = ended.stderr.splitlines()
    for line, setting in zip(lines, ("server.port", "telemetry.metrics_port 0"), strict=True):  # both at once
        assert line.startswith(f"litport: port {port} of 127.0.0.1 is in use by process {os.getpid()} (")
        assert f"; choose another, as in --{setting}" in line
    assert time.monotonic() - begin < 10, "no model was loaded"


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    with serving(tmp_path, "tests/services/strangers/sleeps.py:SleepsAPI", "--server.cache_dir", str(tmp_path)) as slow:
        asking = threading.Thread(target=_ask_and_ignore, args=(f"{slow.url}/predict/sleeps",))
        asking.start()
        wait_until(lambda: slow.http.get("/status", timeout=10).json()["in_flight"])
        slow.process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert slow.process.poll() is None, "it waits for the request"
        slow.process.send_signal(signal.SIGINT)
        assert slow.process.wait(timeout=10) == 0
        asking.join()


def test_a_request_that_outlasts_the_drain_is_told_that_its_model_was_stopped(tmp_path: Path) -> None:
    api = ("tests/services/strangers/sleeps.py:SleepsAPI", "--server.drain_timeout_s", "0.5")
    with serving(tmp_path, *api, "--server.cache_dir", str(tmp_path)) as slow, ThreadPoolExecutor() as pool:
        answer = pool.submit(slow.http.post, "/predict/sleeps", json={"input": 60}, timeout=60)
        wait_until(lambda: slow.http.get("/status", timeout=10).json()["in_flight"])
        slow.process.send_signal(signal.SIGTERM)
        assert slow.process.wait(timeout=30) == 0
        told = answer.result(timeout=30)
    assert told.status_code == 503
    assert told.json()["error"]["message"] == "model 'sleeps' was stopped while it had this request"


def test_a_killed_platform_leaves_no_process_within_five_seconds(tmp_path: Path) -> None:
    with serving(tmp_path, "configs/recipes/echo.yaml", "--server.cache_dir", str(tmp_path)) as platform:
        group = platform.status()["echo"]["group_id"]
        assert isinstance(group, int)
        os.kill(platform.process.pid, signal.SIGKILL)
        wait_until(lambda: not ProcessGroup(group).members(), 5)


def test_a_required_model_that_cannot_start_ends_the_platform_with_its_cause(tmp_path: Path) -> None:
    command = [*LITPORT, "serve", "tests/services/strangers/broken.py:BrokenAPI", "--server.port", "0"]
    ended = subprocess.run(
        [*command, "--server.cache_dir", str(tmp_path)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    assert "broken: failed" in ended.stderr
    assert "serving 0 of 1" not in ended.stderr
    last = json.loads(ended.stderr.splitlines()[-1])["message"]
    assert last.startswith("ending: broken is required and failed: ")
    assert re.search(r"\w+Error: .*; models.broken.required=false keeps the rest$", last), "the exception's class, too"


def _ask_and_ignore(url: str) -> None:
    try:
        httpx.post(url, json={"input": 60}, timeout=120)
    except httpx.TransportError:
        return
