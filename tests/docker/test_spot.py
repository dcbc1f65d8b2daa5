"""A machine that is about to be taken away drains: on the notices of three clouds, given by a small server."""

import contextlib
import http.server
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker.queries import DOCKER

SCRIPT = DOCKER / "spot.sh"
WITH_CURL = pytest.mark.skipif(shutil.which("curl") is None, reason="NOT TESTED: spot.sh, as curl is missing")


class Metadata(http.server.BaseHTTPRequestHandler):
    """Answers as the three clouds' metadata do, before and after `taken` is set."""

    taken = False

    def do_PUT(self) -> None:
        known = self.path == "/latest/api/token" and self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
        self._answer(200 if known else 404, "a-token")

    def do_GET(self) -> None:
        if self.path == "/latest/meta-data/spot/instance-action":
            allowed = self.headers["X-aws-ec2-metadata-token"] == "a-token"
            self._answer(401 if not allowed else 200 if self.taken else 404, '{"action": "terminate"}')
        elif self.path == "/computeMetadata/v1/instance/preempted":
            allowed = self.headers["Metadata-Flavor"] == "Google"
            self._answer(200 if allowed else 403, "TRUE" if self.taken else "FALSE")
        elif self.path == "/metadata/scheduledevents?api-version=2020-07-01":
            allowed = self.headers["Metadata"] == "true"
            events = '[{"EventType": "Preempt"}]' if self.taken else '[{"EventType": "Reboot"}]'
            self._answer(200 if allowed else 400, f'{{"Events": {events}}}')
        else:
            self._answer(404, "")

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 # the base class's name
        pass

    def _answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())


@contextlib.contextmanager
def metadata() -> Iterator[tuple[str, type[Metadata]]]:
    handler = type("OneTest", (Metadata,), {})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", handler
        finally:
            server.shutdown()
            thread.join()


@WITH_CURL
@pytest.mark.parametrize("cloud", ["aws", "gcp", "azure"])
def test_the_command_runs_once_the_machine_is_to_be_taken_away_and_not_before(cloud: str, tmp_path: Path) -> None:
    drained = tmp_path / "drained"
    with metadata() as (url, handler):
        env = {"METADATA": url, "PATH": "/usr/bin:/bin"}
        words = ["sh", str(SCRIPT), cloud, "touch", str(drained)]
        with subprocess.Popen(words, env=env, stderr=subprocess.DEVNULL) as script:
            time.sleep(1)
            assert script.poll() is None
            assert not drained.exists()
            handler.taken = True
            assert script.wait(timeout=20) == 0
    assert drained.exists()


def test_an_unknown_cloud_is_told_in_words() -> None:
    done = subprocess.run(
        ["sh", str(SCRIPT), "cumulus", "true"], capture_output=True, text=True, check=False, timeout=10
    )
    assert done.returncode == 2
    assert "expected aws, gcp or azure and a command, got 'cumulus'" in done.stderr
