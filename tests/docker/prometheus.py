"""The real Prometheus with the repository's own configuration; only addresses and intervals are others."""

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.docker.queries import DOCKER

PROMETHEUS = shutil.which("prometheus")
_START_S = 30.0


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus, by its address."""

    url: str

    def query(self, expression: str) -> dict[tuple[tuple[str, str], ...], float]:
        """The values of this moment, by their labels but for instance and job."""
        found = {}
        for sample in self._get("query", query=expression)["result"]:
            labels = {
                name: text for name, text in sample["metric"].items() if name not in ("__name__", "instance", "job")
            }
            found[tuple(sorted(labels.items()))] = float(sample["value"][1])
        return found

    def number(self, expression: str) -> float | None:
        """The value of an expression that has one, or none."""
        values = list(self.query(expression).values())
        assert len(values) < 2, f"{expression} has {len(values)} values"
        return values[0] if values else None

    def wait_for(self, expression: str, expected: float, timeout_s: float = 20) -> None:
        """Ask until the expression has this value. Raises AssertionError when it has another after `timeout_s`."""
        deadline_s = time.monotonic() + timeout_s
        while (value := self.number(expression)) != expected:
            assert time.monotonic() < deadline_s, f"{expression}: expected {expected}, got {value}"
            time.sleep(0.5)

    def rules(self) -> list[dict[str, Any]]:
        """The rules as they are evaluated, each with its health and last error."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def _get(self, what: str, **asked: str) -> Any:
        response = httpx.get(f"{self.url}/api/v1/{what}", params=asked, timeout=30)
        document = response.json()
        assert document["status"] == "success", (asked, document)
        return document["data"]


@contextlib.contextmanager
def watching(metrics_address: str, folder: Path) -> Iterator[Prometheus]:
    """Run Prometheus until the block ends; it reads the metrics at http://HOST:PORT/metrics every second."""
    assert PROMETHEUS is not None
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        own = f"127.0.0.1:{probe.getsockname()[1]}"
    shutil.copytree(DOCKER / "prometheus", folder / "config")
    target = httpx.URL(metrics_address)
    _replace(folder / "config" / "targets.yml", {"127.0.0.1:9464": f"{target.host}:{target.port}"})
    shorter = {"scrape_interval: 5s": "scrape_interval: 1s", "evaluation_interval: 15s": "evaluation_interval: 1s"}
    _replace(folder / "config" / "prometheus.yml", {**shorter, "127.0.0.1:9090": own})
    command = [PROMETHEUS, "--config.file", str(folder / "config" / "prometheus.yml")]
    command += ["--storage.tsdb.path", str(folder / "data"), "--web.listen-address", own]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _wait_until_ready(f"http://{own}/-/ready", process, folder / "prometheus.log")
        yield Prometheus(f"http://{own}")
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        finally:
            process.kill()


def _replace(file: Path, words: dict[str, str]) -> None:
    text = file.read_text(encoding="utf-8")
    for old, new in words.items():
        assert old in text, f"{file.name} has no {old}"
        text = text.replace(old, new)
    file.write_text(text, encoding="utf-8")


def _wait_until_ready(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline_s = time.monotonic() + _START_S
    while True:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(url, timeout=1).status_code == 200:
                return
        assert process.poll() is None, log.read_text(encoding="utf-8")
        assert time.monotonic() < deadline_s, log.read_text(encoding="utf-8")
        time.sleep(0.2)
