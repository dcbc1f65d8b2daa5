"""What is served changes while it is served, with real LitAPIs: at a signal, by a watched file, and amid a kill."""

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import LITPORT, REPOSITORY, litport, serving, starting
from tests.services.polling import wait_until

ECHO = {"engine": "litserve", "api": "echo"}
API = """
import litserve as ls
class API(ls.LitAPI):
    def setup(self, device): pass
    def decode_request(self, request): return request
    def predict(self, request): return "{}"
    def encode_response(self, output): return {{"output": output}}
"""

pytestmark = pytest.mark.long


def test_a_signal_and_a_watched_file_change_what_is_served(tmp_path: Path) -> None:
    recipe, code = tmp_path / "recipe.yaml", tmp_path / "api.py"
    code.write_text(API.format("old"))
    own = {"engine": "litserve", "api": "./api.py:API", "example": {}}
    recipe.write_text(json.dumps({"models": {"own": own}}))
    with serving(tmp_path, str(recipe), "--watch", "--server.cache_dir", str(tmp_path)) as platform:

        def output() -> object:
            return platform.http.post("/predict/own", json={}, timeout=30).json()["output"]

        assert output() == "old"
        code.write_text(API.format("new"))
        wait_until(lambda: output() == "new")
        code.write_text("class API(")
        wait_until(lambda: "reload refused, nothing has changed" in platform.log.read_text())
        assert output() == "new"
        code.write_text(API.format("newer").replace("pass", "raise ValueError('no such weights')"))
        wait_until(lambda: platform.log.read_text().count("reload failed: own could not be started: ") == 1)
        assert output() == "new"
        os.kill(platform.process.pid, signal.SIGHUP)  # the file is still another one than that of the process
        wait_until(lambda: platform.log.read_text().count("reload failed: own could not be started: ") == 2)
        assert output() == "new"
        code.write_text(API.format("new"))
        recipe.write_text(json.dumps({"models": {"own": own, "echo": ECHO}}))
        os.kill(platform.process.pid, signal.SIGHUP)
        wait_until(lambda: "echo" in platform.status())
        platform.wait_for("echo", state="ready")
        recipe.write_text(json.dumps({"models": {"echo": ECHO}}))
        wait_until(lambda: [*platform.status()] == ["echo"])


def test_a_platform_that_is_killed_amid_a_change_comes_back_whole(tmp_path: Path) -> None:
    recipe, log = tmp_path / "recipe.yaml", tmp_path / "apply.log"
    before: dict[str, Any] = {"models": {"one": ECHO, "two": ECHO}}
    after = {"models": {"one": {**ECHO, "env": {"A": "b"}}, "three": {**ECHO, "workers_per_device": 1}}}
    recipe.write_text(json.dumps(before))
    arguments = (str(recipe), "--server.cache_dir", str(tmp_path))
    with serving(tmp_path, *arguments) as platform, log.open("wb") as file:
        recipe.write_text(json.dumps(after))
        command = [*LITPORT, "apply", str(recipe), "--yes", "--port", platform.url.rpartition(":")[2]]
        client = subprocess.Popen(command, cwd=REPOSITORY, stdout=file, stderr=file)
        wait_until(lambda: "two" not in platform.status(), every_s=0.01)
        assert "three" not in platform.status(), "one of the steps is done"
        os.kill(platform.process.pid, signal.SIGKILL)
        assert client.wait(20) == 2
        assert "ended before it answered" in log.read_text()
        platform.process.wait(20)
    with starting(tmp_path, *arguments) as platform:
        wait_until(lambda: platform.log.read_text().count("serving 2 of 2 models"))
        assert sorted(platform.status()) == ["one", "three"]
        port = platform.url.rpartition(":")[2]
        assert litport("apply", str(recipe), "--port", port).stdout == "nothing differs\n"
