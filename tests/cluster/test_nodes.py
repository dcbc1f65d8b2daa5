"""What happens on Ray when a node dies or freezes, under load.

Each node is a network namespace. One of them is spare: there is room for a replica whose node is gone.
"""

import contextlib
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.cluster.conftest import Ray, gateway
from tests.cluster.load import Load, load
from tests.conftest import REPOSITORY, Platform
from tests.services import ray_nodes
from tests.services.network import Machine
from tests.services.polling import wait_until
from tests.services.ray_nodes import Cluster
from tests.services.replicas import write_secret

pytestmark = pytest.mark.long

MODEL = "sleeps"
MODELS: dict[str, Any] = {
    MODEL: {
        "engine": "litserve",
        "api": f"{REPOSITORY / 'tests/services/strangers/sleeps.py'}:SleepsAPI",
        "replicas": 2,
        "canary_interval_s": 1,
        "canary_timeout_s": 5,
    }
}
USERS = 6
MOST_IN_FLIGHT = 2
"""Of one replica: one in the worker, and one on its way."""
TOLD_S = 10
HEALED_S = 20


@dataclass
class Served:
    """The cluster, two gateways before it, and the recipe."""

    nodes: Cluster
    ray: Ray
    gateways: list[Platform]

    def replicas(self) -> dict[str, Machine]:
        """The machine of each replica that Ray holds to be running, by its id."""
        machines = {machine.address: machine for machine in self.nodes.machines}
        with contextlib.suppress(httpx.HTTPError, KeyError):
            (application,) = self.ray.applications().values()
            (deployment,) = application["deployments"].values()
            return {
                replica["replica_id"]: machines[replica["node_ip"]]
                for replica in deployment["replicas"]
                if replica["state"] == "RUNNING"
            }
        return {}

    @property
    def urls(self) -> list[str]:
        """Of the gateways."""
        return [platform.url for platform in self.gateways]

    def addresses(self, platform: Platform) -> set[str]:
        """Where the gateway has ready replicas."""
        instances: Any = platform.status()[MODEL]["instances"]
        return {instance["address"] for instance in instances if instance["state"] == "ready"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, model_cache: Path) -> Iterator[Served]:
    """Two replicas on two of three nodes, and nothing of Ray or Litport at the end."""
    reason = ray_nodes.problem() or (None if shutil.which("redis-server") else "there is no redis-server")
    if reason:
        pytest.skip(f"NOT TESTED: nodes of Ray that fail, as {reason}")
    folder = tmp_path_factory.mktemp("nodes")
    write_secret(folder)
    environ = {"LITPORT_SERVER__CACHE_DIR": str(model_cache), "PYTHONPATH": str(REPOSITORY)}
    with ray_nodes.cluster(4, environ, with_store=True) as nodes:
        environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(nodes.token_file)}
        ray = Ray(nodes.dashboard, folder, environ)
        recipe = ray.recipe(MODELS)
        deployed = ray.litport("deploy", str(recipe))
        assert deployed.returncode == 0, deployed.stdout + deployed.stderr
        with gateway(ray, recipe) as one, gateway(ray, recipe) as two:
            result = Served(nodes, ray, [one, two])
            _wait_until_whole(result)
            yield result
        undeployed = ray.litport("undeploy", str(recipe))
        assert undeployed.returncode == 0, undeployed.stdout + undeployed.stderr
        wait_until(lambda: not [pid for machine in nodes.machines for pid in _litport(machine)], 30)
    assert not nodes.token_file.parent.exists()


def kill_node(machine: Machine) -> None:
    machine.signal(signal.SIGKILL)


def freeze_node(machine: Machine) -> None:
    machine.signal(signal.SIGSTOP)


@pytest.mark.parametrize("strike", [kill_node, freeze_node], ids=["kill_node", "freeze_node"])
def test_only_what_was_in_flight_there_fails(served: Served, strike: Callable[[Machine], None]) -> None:
    machine = next(iter(served.replicas().values()))
    before = served.addresses(served.gateways[0])
    (address,) = [address for address in before if machine.address in address]
    with load(served.urls, MODEL, USERS) as requests:
        begin_s = time.monotonic()
        strike(machine)
        wait_until(lambda: address not in served.addresses(served.gateways[0]), TOLD_S + 5, every_s=0.01)
        left_s = time.monotonic() - begin_s
        _wait_until_whole(served)
        healed_s = time.monotonic() - begin_s
    machine.signal(signal.SIGKILL)
    served.nodes.start(machine)
    served.nodes.wait(served.nodes.machines)
    _report(strike.__name__, requests, f"left after {left_s:.1f} s, healed after {healed_s:.1f} s")
    assert requests.failures <= MOST_IN_FLIGHT * len(served.gateways)
    assert requests.longest_s < TOLD_S
    assert healed_s < HEALED_S


def _report(name: str, requests: Load, more: str = "") -> None:
    print(f"{name}: {requests.failures} of {len(requests.outcomes)} failed, longest {requests.longest_s:.2f} s; {more}")


def _wait_until_whole(served: Served) -> None:
    def is_whole() -> bool:
        return all(len(served.addresses(platform)) == 2 for platform in served.gateways)

    wait_until(is_whole, 60, every_s=0.05, problem=served.gateways[0].log.read_text)


def _litport(machine: Machine) -> set[int]:
    """The processes of models on this machine."""
    return {pid for pid, command in _commands(machine) if "servers.engines" in command}


def _commands(machine: Machine) -> Iterator[tuple[int, str]]:
    for pid in machine.processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            yield pid, " ".join(psutil.Process(pid).cmdline())
