"""A platform that others reach: keys or none of it, reloads that nobody notices, being process 1 of a container."""

import json
import os
import shutil
import signal
import subprocess
import threading
from pathlib import Path

import httpx
import pytest

from tests.conftest import LITPORT, REPOSITORY, litport, serving
from tests.services.polling import wait_until

ECHO = "configs/recipes/echo.yaml"
ALICE, BOB = "alice-0123456789", "bob-0123456789ab"


def write_keys(file: Path, **entries: object) -> None:
    """Replace the keys file as a whole, readable for its owner only."""
    part = file.with_suffix(".part")
    part.write_text(json.dumps(entries))
    part.chmod(0o600)
    part.replace(file)


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_a_public_address_without_keys_is_refused_unless_it_is_meant(host: str, tmp_path: Path) -> None:
    ended = litport("serve", ECHO, "--server.host", host, "--server.port", "0", "--server.cache_dir", str(tmp_path))
    assert ended.returncode == 2
    assert ended.stderr.startswith(
        f"litport: server.host: {host} is reached from other machines, and there are no keys"
    )
    assert "--auth.open_to_network true" in ended.stderr


def test_a_public_address_with_a_key_or_on_purpose_is_served(tmp_path: Path) -> None:
    for arguments, status in ((["--auth.api_keys", ALICE], 401), (["--auth.open_to_network", "true"], 200)):
        public = ["--server.host", "0.0.0.0", "--server.cache_dir", str(tmp_path)]
        with serving(tmp_path, ECHO, *public, *arguments) as platform:
            assert platform.http.get("/v1/models", timeout=10).status_code == status


def test_a_mistake_in_the_keys_file_is_one_line_before_anything_starts(tmp_path: Path) -> None:
    keys = tmp_path / "keys.yaml"
    write_keys(keys, alice={"key": ALICE, "models": ["ecko"]}, bob={"key": BOB, "requests_per_minute": 0})
    ended = litport("serve", ECHO, "--auth.keys_file", str(keys), "--server.port", "0")
    assert ended.returncode == 2
    assert "bob.requests_per_minute: expected a whole number of 1 or more" in ended.stderr
    write_keys(keys, alice={"key": ALICE, "models": ["ecko"]})
    ended = litport("serve", ECHO, "--auth.keys_file", str(keys), "--server.port", "0")
    assert "alice.models: expected names of models, got 'ecko'; did you mean echo?" in ended.stderr
    assert ALICE not in ended.stderr


def test_keys_and_limits_are_reloaded_with_no_request_lost(tmp_path: Path) -> None:
    keys, recipe = tmp_path / "keys.yaml", tmp_path / "recipe.yaml"
    write_keys(keys, alice={"key": ALICE})
    text = f"models: {{echo: {{engine: litserve, api: echo}}}}\nauth: {{keys_file: {keys}}}\n"
    recipe.write_text(text)
    with serving(tmp_path, str(recipe), "--server.cache_dir", str(tmp_path)) as platform:

        def ask(key: str, size: int = 1) -> int:
            headers = {"authorization": f"Bearer {key}"}
            body = {"input": "x" * size}
            return platform.http.post("/predict/echo", json=body, headers=headers, timeout=30).status_code

        statuses: list[int] = []
        done = threading.Event()

        def keep_asking() -> None:
            while not done.is_set():
                statuses.append(ask(ALICE))

        def wait_for_refusals(count: int) -> None:
            wait_until(lambda: platform.log.read_text().count("reload refused, nothing has changed") == count, 10)

        def reload(status: int, key: str, size: int = 1) -> None:
            os.kill(platform.process.pid, signal.SIGHUP)
            wait_until(lambda: ask(key, size) == status, 10)

        asking = [threading.Thread(target=keep_asking) for _ in range(4)]
        for thread in asking:
            thread.start()
        assert ask(BOB) == 401
        write_keys(keys, alice={"key": ALICE}, bob={"key": BOB})
        reload(200, BOB)
        recipe.write_text(text + "limits: {max_body_bytes: 1000}\n")
        reload(413, BOB, size=2000)
        write_keys(keys, alice={"key": ALICE})
        reload(401, BOB)
        for number, (file, wrong) in enumerate(((keys, "alice: ["), (recipe, "models: {")), start=1):
            file.write_text(wrong)
            os.kill(platform.process.pid, signal.SIGHUP)
            wait_for_refusals(number)
        done.set()
        for thread in asking:
            thread.join()
        log = platform.log.read_text()
    assert set(statuses) == {200}
    assert log.count("reloaded (SIGHUP): ") == 3


@pytest.mark.long
def test_sigint_drains_like_sigterm(tmp_path: Path) -> None:
    release = tmp_path / "release"
    body = {"name": "one", "how": f"until {release}", "begun": str(tmp_path / "begun")}
    slow = "tests/services/strangers/slow.py:SlowAPI"
    with serving(tmp_path, slow, "--server.cache_dir", str(tmp_path)) as platform:
        answers: list[int] = []

        def ask() -> None:
            answers.append(platform.http.post("/predict/slow", json=body, timeout=60).status_code)

        asking = threading.Thread(target=ask)
        asking.start()
        platform.wait_for("slow", running=1)
        platform.process.send_signal(signal.SIGINT)
        wait_until(lambda: platform.http.get("/ready", timeout=10).status_code == 503, 5)
        refused = platform.http.post("/predict/slow", json=body, timeout=10)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "shutting_down")
        release.touch()
        asking.join()
        assert answers == [200]
        assert platform.process.wait(timeout=30) == 0


@pytest.mark.long
def test_as_process_1_it_serves_and_reaps_and_ends(tmp_path: Path) -> None:
    """In a container nobody else takes note of orphans; here a process namespace stands for one."""
    namespace = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if not shutil.which("unshare") or subprocess.run([*namespace, "true"], check=False, capture_output=True).returncode:
        pytest.skip("unshare cannot make a process namespace here (it takes root and CAP_SYS_ADMIN)")
    log = tmp_path / "log"
    command = [*namespace, *LITPORT, "serve", ECHO, "--server.port", "0", "--server.cache_dir", str(tmp_path)]
    with log.open("wb") as output:
        outer = subprocess.Popen(command, cwd=REPOSITORY, stdout=output, stderr=output)
    try:
        url = _url_in(log)
        inner = int(Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()[0])
        main_pid = _children(inner)["litserve.main"]
        os.kill(main_pid, signal.SIGKILL)  # its children become those of process 1
        wait_until(lambda: _restarts(url) == 1 and _is_ready(url), 30)
        assert not _zombies_of(inner)
        os.kill(inner, signal.SIGTERM)
        assert outer.wait(timeout=30) == 0
    finally:
        outer.kill()
        outer.wait()


def _url_in(log: Path) -> str:
    wait_until(lambda: "serving 1 of 1 models at " in log.read_text(), 60, problem=log.read_text)
    return log.read_text().partition("serving 1 of 1 models at ")[2].split()[0]


def _restarts(url: str) -> object:
    return httpx.get(f"{url}/status", timeout=10).json()["models"][0]["restarts"]


def _is_ready(url: str) -> bool:
    return httpx.get(f"{url}/ready", timeout=10).status_code == 200


def _children(pid: int) -> dict[str, int]:
    """The main process of a LitAPI and the reaper, where they are children of this process."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    words = {int(child): Path(f"/proc/{child}/cmdline").read_text() for child in children}
    names = ("litserve.main", "processes.reaper")
    return {name: child for child, line in words.items() for name in names if name in line}


def _zombies_of(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [
        int(child) for child in children if Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    ]
