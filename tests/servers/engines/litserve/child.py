"""A LitServe process as the supervisor starts it, with an HTTP client on its socket."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from servers.processes.group import ProcessGroup
from tests.services.polling import wait_until

REPOSITORY = Path(__file__).resolve().parents[4]
STRANGERS = REPOSITORY / "tests" / "services" / "strangers"
_START_TIMEOUT_S = 90


@dataclass(frozen=True)
class Child:
    """A running child; `http` speaks to it, `card` is what it says about itself."""

    process: subprocess.Popen[bytes]
    http: httpx.Client
    card: dict[str, Any]
    log_file: Path

    def predict(self, **body: Any) -> httpx.Response:
        return self.http.post(self.card["api_path"], json=body)

    def is_gone(self) -> bool:
        """Whether no process of its group lives, give or take the second that a resource tracker needs to notice."""
        deadline = time.monotonic() + 1
        while any(self._owns(entry) for entry in Path("/proc").iterdir() if entry.name.isdigit()):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def _owns(self, entry: Path) -> bool:
        try:
            state, _, group = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
        except OSError:
            return False
        return int(group) == self.process.pid and state != "Z"


@contextmanager
def running(folder: Path, **spec: Any) -> Iterator[Child]:
    """Start a child, wait until it can answer, and leave nothing of it."""
    process, log_file = launch(folder, **spec)
    transport = httpx.HTTPTransport(uds=str(folder / "m.sock"))
    try:
        with httpx.Client(transport=transport, base_url="http://model", timeout=60) as http:
            await_that(lambda: _is_ready(folder / "m.sock", http), process, log_file)
            card = json.loads((folder / "card.json").read_text())
            yield Child(process, http, card, log_file)
    finally:
        end(process)


def launch(folder: Path, **spec: Any) -> tuple[subprocess.Popen[bytes], Path]:
    """Start a child in a process group of its own; returns it and the file with its output."""
    names = {"name": "m", "uds": str(folder / "m.sock"), "card": str(folder / "card.json"), "log_level": "warning"}
    spec_file = folder / "spec.json"
    spec_file.write_text(json.dumps({**names, **spec}))
    log_file = folder / "log"
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "servers.engines.litserve.child.main", str(spec_file)],
            cwd=REPOSITORY,
            env={**os.environ, "OMP_NUM_THREADS": "1"},  # torch's threads wait busily for each other on a busy machine
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return process, log_file


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill the child's group, if anything of it is left."""
    ProcessGroup(process.pid).kill()
    process.wait()


def await_that(happened: Callable[[], bool], process: subprocess.Popen[bytes], log_file: Path) -> None:
    """Wait until something that the child does has happened; AssertionError with its output when it cannot any more."""

    def check() -> bool:
        assert process.poll() is None, f"the child ended with {process.returncode}: {log_file.read_text()[-2000:]}"
        return happened()

    wait_until(check, _START_TIMEOUT_S, problem=lambda: log_file.read_text()[-2000:])


def _is_ready(path: Path, http: httpx.Client) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:  # httpx would leak a socket at each refusal
        if probe.connect_ex(str(path)) != 0:
            return False
    return http.get("/health").status_code == 200
