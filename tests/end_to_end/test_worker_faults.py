"""Faults of a worker on the host: memory that runs out, native code that is stuck, a death in setup, broken streams."""

import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import REPOSITORY, Platform, litport, serving
from tests.services.polling import wait_until

_STRANGERS = REPOSITORY / "tests" / "services" / "strangers"
_MEMORY = Path("/sys/fs/cgroup/memory")
_MIB = 1024**2
_MODELS: dict[str, dict[str, Any]] = {
    "greedy": {"api": f"{_STRANGERS}/greedy.py:GreedyAPI", "workers_per_device": 2},
    "slow": {"api": f"{_STRANGERS}/slow.py:SlowAPI", "workers_per_device": 2, "cancel_grace_s": 1},
    "fragile": {"api": f"{_STRANGERS}/dies.py:DiesAPI", "max_restarts": 1, "required": False},
    "stream": {"api": f"{_STRANGERS}/documented.py:StreamAPI", "stream": True},
}


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("faulty")
    recipe = folder / "faulty.yaml"
    models = {name: {"engine": "litserve", "serving": "host", **settings} for name, settings in _MODELS.items()}
    recipe.write_text(json.dumps({"models": models}))
    with serving(
        folder, str(recipe), "--server.cache_dir", str(folder), environ={"LIT_SERVER_API_KEY": "k"}
    ) as platform:
        platform.wait_for("fragile", state="ready")  # which is not required, so that nothing else waits for it
        yield platform


@contextmanager
def _limited(pid: int, limit_bytes: int) -> Iterator[None]:
    """Let the kernel end this process once it uses more memory."""
    group = _MEMORY / f"litport-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(limit_bytes))
        (group / "cgroup.procs").write_text(str(pid))
    except OSError as problem:
        pytest.skip(f"no control group for memory can be made here: {problem}")
    try:
        yield
    finally:
        wait_until(lambda: not (group / "cgroup.procs").read_text())
        group.rmdir()


@pytest.mark.long
def test_a_worker_without_memory_fails_its_request_only_and_the_log_says_why(faulty: Platform) -> None:
    def ask(mib: int) -> httpx.Response:
        return faulty.http.post("/predict/greedy", json={"mib": mib}, timeout=60)

    pid = ask(0).json()["pid"]
    with _limited(pid, 300 * _MIB):
        while True:  # until it is the limited worker's turn
            begin_s = time.monotonic()
            answer = ask(600)
            if answer.status_code != 200:
                break
    spent_s = time.monotonic() - begin_s
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_died")
    assert ask(1).status_code == 200
    assert faulty.status()["greedy"]["state"] == "ready"
    wait_until(lambda: faulty.status()["greedy"]["restarts"] == 1, 60)
    assert f"(process {pid}) was killed by SIGKILL (out of memory?)" in faulty.log.read_text()
    print(f"out of memory: 503 after {spent_s:.2f} s, the allocation included")


@pytest.mark.long
def test_a_worker_stuck_in_native_code_is_replaced_and_the_other_answers_meanwhile(
    faulty: Platform, tmp_path: Path
) -> None:
    def ask(name: str, how: str, **headers: str) -> httpx.Response:
        body = {"name": name, "begun": str(tmp_path / name), "how": how}
        return faulty.http.post("/predict/slow", json=body, headers=headers, timeout=60)

    with ThreadPoolExecutor() as pool:
        stuck = pool.submit(ask, "stuck", "native", **{"x-request-timeout": "1"})
        wait_until((tmp_path / "stuck").exists)
        begin_s = time.monotonic()
        answered = 0
        while not stuck.done():
            assert ask(f"other{answered}", "now").status_code == 200
            answered += 1
        assert stuck.result().status_code == 504
        spent_s = time.monotonic() - begin_s
        assert spent_s < 2
        assert answered > 0
        wait_until(lambda: faulty.status()["slow"]["restarts"] == 1, 30)
        assert ask("last", "now").status_code == 200
    print(f"stuck: 504 after {spent_s:.2f} s of a limit of 1 s, {answered} others answered meanwhile")


def test_a_request_that_only_waited_when_the_model_ended_is_no_suspect(faulty: Platform, tmp_path: Path) -> None:
    def ask(**body: Any) -> httpx.Response:
        return faulty.http.post("/predict/fragile", json=body, timeout=60)

    begun, released = tmp_path / "begun", tmp_path / "released"
    deadly = {"input": "out of memory"}
    with ThreadPoolExecutor() as pool:
        fatal = [pool.submit(ask, **deadly, begun=str(begun), until=str(released))]
        wait_until(begun.exists)
        fatal.append(pool.submit(ask, **deadly))
        wait_until(lambda: _at_hand(faulty, "fragile") == 2)
        waiting = pool.submit(ask, input=1)
        wait_until(lambda: _at_hand(faulty, "fragile") == 3)
        released.touch()
        assert [answer.result().status_code for answer in fatal] == [503, 503]
        assert waiting.result().status_code == 503
        assert "ended before it had this request" in waiting.result().json()["error"]["message"]
    answer = wait_until(lambda: again if (again := ask(input=1)).status_code != 503 else None, 60)
    assert answer.status_code == 200, "not 422, request_quarantined"


def _at_hand(platform: Platform, model: str) -> int:
    """How many requests the model works on or lets wait."""
    status: Any = platform.status()[model]
    return int(status["running"] + status["waiting"])


def test_a_broken_stream_is_an_error_of_the_command_line_and_of_the_books(faulty: Platform) -> None:
    def failed() -> Any:
        return faulty.status()["stream"]["recent"]["failed"]  # type: ignore[index]

    before = failed()
    process = litport("predict", "stream", '{"count": 3, "fail": 2}', "--url", faulty.url)
    assert process.returncode == 1
    assert '{"output": 1}' in process.stdout
    assert "the answer broke off" in process.stderr
    refused = litport("predict", "stream", '{"count": 3, "fail": "first"}', "--url", faulty.url)
    assert (refused.returncode, refused.stderr.strip()) == (1, "418: not before the first part")
    assert failed() >= before + 1


def test_a_worker_that_is_killed_in_setup_fails_the_model_at_once_with_its_last_words(tmp_path: Path) -> None:
    name = f"{_STRANGERS}/broken.py:DyingAPI"
    begin_s = time.monotonic()
    process = litport("serve", name, "--models.broken.serving", "host", "--server.cache_dir", str(tmp_path))
    assert process.returncode == 1
    assert time.monotonic() - begin_s < 60
    words = process.stdout + process.stderr
    assert "was killed by SIGKILL in setup(); its last words: loading the last layer" in words
