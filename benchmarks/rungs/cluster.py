"""The rungs on a Ray cluster: the model behind Litport's gateway, and a LitAPI behind Ray's own ingress.

Each is deployed for its pass and ended after it. The load and the gateway are on the harness's machine, the replicas
where Ray puts them, so the processors that they use are not measured.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from benchmarks.analysis.measurement import Answer, Measurement
from benchmarks.load.request import ReadAs
from benchmarks.load.workload import Item
from benchmarks.rungs.process import RungError
from benchmarks.rungs.server.rung import ServerRung
from configs.cluster import Cluster
from servers.cluster import rollout
from servers.cluster.dashboard import Dashboard, connect

_INGRESS_TIMEOUT_S, _POLL_S = 30.0, 0.2


class ClusterRung:
    """A server before an application that is deployed on `cluster` while the rung runs.

    `ingress` are the options of Ray's own HTTP, for an application behind it: it then needs a Ray Serve to itself.
    """

    pid: int | None = None
    batch_size: int | None = None

    def __init__(
        self,
        server: ServerRung,
        cluster: Cluster,
        application: Mapping[str, Any],
        ingress: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = server.name
        self.machines: int | None = None
        self._server = server
        self._cluster = cluster
        self._application = application
        self._ingress = ingress
        self._is_ours = False

    @property
    def read_as(self) -> ReadAs | None:
        """How the load generator reads the answers."""
        return self._server.read_as

    def start(self) -> None:
        """Deploy the application, then start the server before it. Raises RungError, UserError."""
        lines: list[str] = []
        with connect(self._cluster, None) as ray:
            self._check(ray)
            self._is_ours = True
            if not rollout.deploy(ray, [self._application], lines.append, self._ingress):
                raise RungError(f"{self.name}: {lines[-1]}")
            self.machines = len(rollout.nodes(ray, self._application["name"]))
        self._server.start()
        if self._ingress is not None:
            self._wait_for_ingress()

    def measure(self, items: Sequence[Item], users: int, time_limit_s: float, processes: int) -> Measurement:
        """Load the server with the items."""
        return self._server.measure(items, users, time_limit_s, processes)

    def answer(self, items: Sequence[Item]) -> list[Answer]:
        """Ask without streaming."""
        return self._server.answer(items)

    def end(self) -> None:
        """End the server and what was deployed. Raises UserError where Ray does not end it."""
        self._server.end()
        if self._is_ours:
            self._is_ours = False
            with connect(self._cluster, None) as ray:
                rollout.undeploy(ray, [self._application["name"]], lambda _: None)

    def _check(self, ray: Dashboard) -> None:
        """Raise RungError where what runs on the cluster is not ours to change."""
        running = (ray.instance().get("applications") or {}).keys()
        name = self._application["name"]
        if name in running:
            raise RungError(
                f"{self.name}: {name} runs on Ray already; undeploy it, or name its gateway's URL as a rung"
            )
        if self._ingress is not None and running:
            raise RungError(
                f"{self.name}: expected a Ray Serve without applications, whose HTTP may be started, got "
                f"{', '.join(sorted(running))}"
            )

    def _wait_for_ingress(self) -> None:
        """Return once Ray's HTTP knows the application. Raises RungError."""
        deadline_s = time.monotonic() + _INGRESS_TIMEOUT_S
        while problem := self._ingress_problem():
            if time.monotonic() > deadline_s:
                raise RungError(
                    f"{self.name}: expected Ray's HTTP at {self._server.url}, which it opens on loopback of each node, "
                    f"got {problem}; run the harness on a node"
                )
            time.sleep(_POLL_S)

    def _ingress_problem(self) -> httpx.HTTPError | None:
        try:
            httpx.get(f"{self._server.url}/-/healthz", timeout=5, trust_env=False).raise_for_status()
        except httpx.HTTPError as problem:
            return problem
        return None
