"""A Ray cluster whose nodes are machines of `network`, started by `litport ray start`."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import httpx

from tests.conftest import LITPORT
from tests.services import network
from tests.services.network import Machine
from tests.services.polling import wait_until

TOKEN = "f00d" * 16
_GCS_PORT, _DASHBOARD_PORT, _REDIS_PORT = 6379, 8265, 6390
_STORE_BYTES = 80 * 1024 * 1024  # the least that Ray takes
_START_S = 60


def problem() -> str | None:
    """Why no cluster can run here, or None."""
    return network.problem() if find_spec("ray") else "Ray is not installed (make ray)"


@dataclass(frozen=True)
class Cluster:
    """The machines: the head is the first. `store` is where its control plane keeps its state, if not in memory."""

    machines: list[Machine]
    token_file: Path
    store: Machine | None
    environ: Mapping[str, str]

    @property
    def head(self) -> Machine:
        return self.machines[0]

    @property
    def dashboard(self) -> str:
        """Where Ray's REST API is."""
        return f"http://{self.head.address}:{_DASHBOARD_PORT}"

    def start(self, machine: Machine) -> None:
        """Start the node of this machine, which has one CPU, or none as the head; `live` says when it is there."""
        place = ["--head"] if machine is self.head else ["--address", f"{self.head.address}:{_GCS_PORT}"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        environment |= self.environ
        # Ray takes the processes of the other machines for its own, which it would find by this file.
        (machine.folder / "ray_current_cluster").unlink(missing_ok=True)
        if machine is self.head and self.store is not None:
            environment["RAY_REDIS_ADDRESS"] = f"{self.store.address}:{_REDIS_PORT}"
        options = [
            f"--node-ip-address={machine.address}",
            f"--temp-dir={machine.folder}",
            f"--num-cpus={0 if machine is self.head else 1}",
            f"--object-store-memory={_STORE_BYTES}",
            "--include-log-monitor=False",  # a process less on each machine
        ]
        if machine is self.head:
            options += [f"--port={_GCS_PORT}", f"--dashboard-host={machine.address}", "--num-gpus=0"]
        machine.start(
            [*LITPORT, "ray", "start", *place, f"--token-file={self.token_file}", "--", *options], environment
        )

    def live(self) -> set[str]:
        """The addresses of the nodes that the control plane holds to be alive; none where it does not answer."""
        try:
            answer = httpx.get(f"{self.dashboard}/api/v0/nodes?detail=true", headers=self.headers, timeout=5)
            nodes = answer.raise_for_status().json()["data"]["result"]["result"]
        except (httpx.HTTPError, ValueError):
            return set()
        return {node["node_ip"] for node in nodes if node["state"] == "ALIVE"}

    @property
    def headers(self) -> dict[str, str]:
        """What Ray's REST API asks for."""
        return {"Authorization": f"Bearer {TOKEN}"}

    def wait(self, machines: list[Machine], timeout_s: float = _START_S) -> None:
        """Wait until these nodes are alive, and no other is. Raises AssertionError with their logs."""
        addresses = {machine.address for machine in machines}
        wait_until(
            lambda: self.live() == addresses,
            timeout_s,
            every_s=0.2,
            problem=lambda: "\n".join(f"{machine.name}:\n{machine.log}" for machine in self.machines),
        )


@contextlib.contextmanager
def cluster(count: int, environ: Mapping[str, str], with_store: bool = False) -> Iterator[Cluster]:
    """A head and `count - 1` more nodes, whose processes have these variables; with a Redis on a machine of its own."""
    folder = Path(tempfile.mkdtemp(prefix="lp-"))  # short: the paths of Ray's sockets have 107 characters at most
    try:
        token_file = folder / "token"
        token_file.write_text(TOKEN)
        token_file.chmod(0o600)
        with network.network(count + with_store, folder) as machines:
            nodes = Cluster(machines[:count], token_file, machines[-1] if with_store else None, environ)
            if nodes.store is not None:
                nodes.store.start(_redis(nodes.store))
            nodes.start(nodes.head)
            nodes.wait([nodes.head])
            for machine in nodes.machines[1:]:
                nodes.start(machine)
            nodes.wait(nodes.machines)
            yield nodes
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _redis(machine: Machine) -> list[str]:
    options = {"bind": machine.address, "port": str(_REDIS_PORT), "protected-mode": "no", "dir": str(machine.folder)}
    return ["redis-server", *(part for name, value in options.items() for part in (f"--{name}", value))]
