"""A platform for a part: `litport serve` with a recipe, on a port of its own, until the block is left."""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from benchmarks.rungs.process import free_port
from clients.documents import read_status
from clients.ready import wait_until_ready
from servers.processes.interpreter import module_argv

_END_S = 20.0


@dataclass(frozen=True)
class Platform:
    """A running platform; `http` speaks to its public port."""

    http: httpx.Client

    def groups(self) -> dict[str, int]:
        """The process group of each model that has one."""
        status = read_status(self.http.get("/status").content)
        return {model.name: model.group_id for model in status.models if model.group_id is not None}

    def states(self) -> dict[str, str]:
        """The state of each model."""
        return {model.name: model.state for model in read_status(self.http.get("/status").content).models}

    def longest_wake_s(self) -> float | None:
        """The longest of the models' last wakings, in seconds; None where none has slept."""
        residences = [model.residence for model in read_status(self.http.get("/status").content).models]
        return max((item.wake_s for item in residences if item and item.wake_s is not None), default=None)

    def is_ready(self) -> bool:
        """Whether every model takes traffic."""
        return self.http.get("/ready").status_code == httpx.codes.OK


@contextmanager
def serving(models: Mapping[str, Any], folder: Path, timeout_s: float) -> Iterator[Platform]:
    """Serve these models; the log is `folder/platform.log`. Raises TimeoutError."""
    port = free_port()
    recipe = folder / "recipe.yaml"
    recipe.write_text(json.dumps({"server": {"port": port}, "models": models}))  # YAML reads JSON
    argv = module_argv("litport", "serve", str(recipe), "--auth.api_keys=[]")
    environ = {**os.environ, "LITPORT_TELEMETRY__METRICS_PORT": "0"}
    url = f"http://127.0.0.1:{port}"
    with (
        (folder / "platform.log").open("wb") as log,
        subprocess.Popen(argv, stdout=log, stderr=log, env=environ) as litport,
    ):
        try:
            wait_until_ready(url, timeout_s)
            with httpx.Client(base_url=url, timeout=60, trust_env=False) as http:
                yield Platform(http)
        finally:
            litport.terminate()
            try:
                litport.wait(_END_S)
            except subprocess.TimeoutExpired:
                litport.kill()
