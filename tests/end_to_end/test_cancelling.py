"""Work that nobody waits for, or that is stuck: its client gets a 504 in time, and the next one an answer."""

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.conftest import Platform, serving
from tests.services.polling import wait_until

CHAT = "smollm2-135m-instruct"
SLOW = "tests/services/strangers/slow.py:SlowAPI"


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """One worker, and a second for each request."""
    folder = tmp_path_factory.mktemp("slow")
    limits = ["--models.slow.request_timeout_s", "1", "--models.slow.cancel_grace_s", "1"]
    with serving(folder, SLOW, *limits, "--server.cache_dir", str(folder)) as platform:
        yield platform


def ask(platform: Platform, name: str, how: str, folder: Path) -> httpx.Response:
    body = {"name": name, "how": how, "begun": str(folder / name)}
    return platform.http.post("/predict/slow", json=body, timeout=60)


@pytest.mark.parametrize("how", ["asleep", "busy"])
def test_a_stuck_predict_is_answered_in_time_and_interrupted(slow: Platform, tmp_path: Path, how: str) -> None:
    restarts = slow.status()["slow"]["restarts"]
    begin_s = time.monotonic()
    answer = ask(slow, f"stuck {how}", how, tmp_path)
    spent_s = time.monotonic() - begin_s
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "timeout")
    assert (tmp_path / f"stuck {how}").exists(), "it had begun"
    print(f"504 after {spent_s:.2f} s of a limit of 1 s")
    assert spent_s < 2

    def ask_next() -> httpx.Response | None:
        answer = ask(slow, "next", "at once", tmp_path)
        return answer if answer.status_code == 200 else None

    assert f"stuck {how}" in wait_until(ask_next, 10).json()["seen"], "by the same worker"
    assert slow.status()["slow"]["restarts"] == restarts


def test_a_predict_that_does_not_yield_costs_its_worker(slow: Platform, tmp_path: Path) -> None:
    restarts = slow.status()["slow"]["restarts"]
    assert isinstance(restarts, int)
    assert ask(slow, "native", "native", tmp_path).status_code == 504
    status = slow.wait_for("slow", 30, state="ready", restarts=restarts + 1)
    assert ask(slow, "next", "at once", tmp_path).status_code == 200
    assert "its work went on for 1 s after its request was cancelled" in slow.log.read_text()
    assert "was killed by SIGKILL" in Path(str(status["log_file"])).read_text()


def test_a_client_that_leaves_frees_the_worker(slow: Platform, tmp_path: Path) -> None:
    body = {"name": "left", "how": "asleep", "begun": str(tmp_path / "left")}
    with pytest.raises(httpx.ReadTimeout):
        slow.http.post("/predict/slow", json=body, timeout=0.5)
    begin_s = time.monotonic()
    answer = ask(slow, "next", "at once", tmp_path)
    assert answer.status_code == 200, "within its one second, and the one before would have slept for 60"
    print(f"the worker was free {time.monotonic() - begin_s:.2f} s after its client had left")


@pytest.mark.parametrize("leaves", [True, False], ids=["the client leaves", "its time is over"])
def test_a_generation_ends_with_the_wait_for_it(platform: Platform, leaves: bool) -> None:
    body = {"model": CHAT, "prompt": "Once", "max_tokens": 1500, "ignore_eos": True, "stream": leaves}
    if leaves:
        with platform.http.stream("POST", "/v1/completions", json=body, timeout=60) as answer:
            parts = answer.iter_bytes()  # httpx hangs up once this is no longer held
            next(parts)
            wait_until(lambda: _running(platform) == 1, 10)
    else:
        headers = {"x-request-timeout": "1"}
        answer = platform.http.post("/v1/completions", json=body, headers=headers, timeout=60)
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "timeout")
    begin_s = time.monotonic()
    wait_until(lambda: _running(platform) == 0, 10)
    print(f"vLLM had dropped it after {time.monotonic() - begin_s:.2f} s")


def _running(platform: Platform) -> int:
    """How many requests vLLM works on, by its own count, which it brings up to date as it goes."""
    transport = httpx.HTTPTransport(uds=str(platform.status()[CHAT]["socket"]))
    with httpx.Client(transport=transport, base_url="http://model") as client:
        text = client.get("/metrics", timeout=10).text
    lines = [line for line in text.splitlines() if line.startswith("vllm:num_requests_running{")]
    return int(sum(float(line.rpartition(" ")[2]) for line in lines))
