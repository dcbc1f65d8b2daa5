"""A Ray cluster of one node on 127.0.0.2, shared by all tests; they are skipped where Ray is not installed."""

import contextlib
import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from tests.conftest import LITPORT, REPOSITORY, Platform, litport, serving
from tests.services.polling import wait_until
from tests.services.ports import free_port
from tests.services.replicas import write_secret

HOST = "127.0.0.2"
CPUS = 2
"""Ray keeps as many idle processes, so few of them."""


@dataclass(frozen=True)
class Ray:
    """The cluster: its dashboard, the folder of its tests, and the variables of its processes."""

    dashboard: str
    folder: Path
    environ: Mapping[str, str]

    def recipe(self, models: Mapping[str, Any], name: str = "recipe") -> Path:
        """A recipe of these models for this cluster."""
        cluster = {
            "dashboard": self.dashboard,
            "secret_file": str(self.folder / "secret"),
            "token_file": self.environ["RAY_AUTH_TOKEN_PATH"],
        }
        file = self.folder / f"{name}.yaml"
        file.write_text(yaml.safe_dump({"cluster": cluster, "models": dict(models)}))
        return file

    def litport(self, *arguments: str, timeout_s: float = 120) -> "subprocess.CompletedProcess[str]":
        """Run a command on the cluster to its end."""
        return litport(*arguments, environ=self.environ, timeout_s=timeout_s)

    def processes(self) -> list[psutil.Process]:
        """All processes of the cluster, those of Litport included: they have its token."""
        token = self.environ["RAY_AUTH_TOKEN_PATH"]
        return [
            process
            for process in psutil.process_iter(["cmdline", "environ"])
            if (process.info["environ"] or {}).get("RAY_AUTH_TOKEN_PATH") == token
        ]

    def applications(self) -> dict[str, Any]:
        """What Ray Serve says of its applications."""
        token = Path(self.environ["RAY_AUTH_TOKEN_PATH"]).read_text()
        headers = {"authorization": f"Bearer {token}"}
        answer = httpx.get(f"{self.dashboard}/api/serve/applications/", headers=headers, timeout=20)
        answer.raise_for_status()
        applications: dict[str, Any] = answer.json()["applications"]
        return applications


@pytest.fixture(scope="session")
def ray(tmp_path_factory: pytest.TempPathFactory, model_cache: Path) -> Iterator[Ray]:
    """The cluster; it ends with all of its processes."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("NOT TESTED: Ray is not installed in this environment (the extra `ray`)")
    folder = tmp_path_factory.mktemp("ray")
    write_secret(folder)
    token_file = folder / "token"
    token_file.write_text(secrets.token_hex(32))
    token_file.chmod(0o600)
    temp_dir = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))  # sockets in it must have short paths
    environ = {
        "RAY_AUTH_TOKEN_PATH": str(token_file),
        "LITPORT_SERVER__CACHE_DIR": str(model_cache),
        "PYTHONPATH": str(REPOSITORY),
    }
    port = free_port()
    command = [
        *(*LITPORT, "ray", "start", "--head", "--token-file", str(token_file), "--"),
        *("--node-ip-address", HOST, "--port", str(free_port()), "--num-cpus", str(CPUS), "--num-gpus", "0"),
        *("--dashboard-host", HOST, "--dashboard-port", str(port), "--temp-dir", str(temp_dir)),
        "--include-log-monitor=False",  # nobody reads what it tells
        *("--object-store-memory", str(80 * 2**20), "--dashboard-agent-listen-port", str(free_port())),
    ]
    with (folder / "ray.log").open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env={**os.environ, **environ}, start_new_session=True
        )
    cluster = Ray(f"http://{HOST}:{port}", folder, environ)
    try:
        wait_until(lambda: _answers(cluster, process), 90, every_s=0.2, problem=(folder / "ray.log").read_text)
        yield cluster
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=60)
        finally:
            for member in cluster.processes():
                with contextlib.suppress(psutil.NoSuchProcess):
                    member.kill()
            process.wait()
            shutil.rmtree(temp_dir, ignore_errors=True)


@contextlib.contextmanager
def gateway(ray: Ray, recipe: Path) -> Iterator[Platform]:
    """`litport gateway` of a recipe on a free port, until the block ends, which begins when it is ready."""
    folder = Path(tempfile.mkdtemp(prefix="gateway-", dir=ray.folder))
    with serving(folder, str(recipe), timeout_s=60, environ=ray.environ, command="gateway") as platform:
        yield platform


def _answers(ray: Ray, process: "subprocess.Popen[bytes]") -> bool:
    assert process.poll() is None, "Ray has ended"
    with contextlib.suppress(httpx.HTTPError):
        ray.applications()
        return True
    return False
