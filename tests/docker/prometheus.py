"""The real Prometheus with the repository's own configuration; only addresses and intervals are others."""

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.docker.queries import DOCKER
from tests.services.polling import wait_until
from tests.services.ports import free_port

PROMETHEUS = shutil.which("prometheus")
_START_S = 30.0


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus, by a client of it."""

    http: httpx.Client

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
        wait_until(
            lambda: self.number(expression) == expected,
            timeout_s,
            every_s=0.2,
            problem=lambda: f"{expression}: expected {expected}, got {self.number(expression)}",
        )

    def rules(self) -> list[dict[str, Any]]:
        """The rules as they are evaluated, each with its health and last error."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def _get(self, what: str, **asked: str) -> Any:
        response = self.http.get(f"/api/v1/{what}", params=asked)
        document = response.json()
        assert document["status"] == "success", (asked, document)
        return document["data"]


@contextlib.contextmanager
def watching(metrics_address: str, folder: Path) -> Iterator[Prometheus]:
    """Run Prometheus until the block ends; it reads the metrics at http://HOST:PORT/metrics every second."""
    assert PROMETHEUS is not None
    own = f"127.0.0.1:{free_port()}"
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
        log_file = folder / "prometheus.log"
        with httpx.Client(base_url=f"http://{own}", timeout=30) as http:
            wait_until(lambda: _is_ready(http, process, log_file), _START_S, problem=log_file.read_text)
            yield Prometheus(http)
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


def _is_ready(http: httpx.Client, process: "subprocess.Popen[bytes]", log: Path) -> bool:
    assert process.poll() is None, log.read_text(encoding="utf-8")
    with contextlib.suppress(httpx.HTTPError):
        return http.get("/-/ready").status_code == 200
    return False
