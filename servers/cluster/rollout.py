"""The rollout of applications on Ray Serve: declares them beside those of others, and tells how each one goes."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from configs.errors import UserError
from servers.cluster.application import IMPORT_PATH
from servers.cluster.dashboard import Dashboard, Node
from servers.cluster.deployment import DEPLOYMENT

_POLL_S = 0.5
# A replica that has no node after this time waits for one that is not there.
_PLACEMENT_S = 15.0
_GONE_TIMEOUT_S = 120.0

Say = Callable[[str], None]
Application = Mapping[str, Any]


def deploy(
    dashboard: Dashboard, applications: Sequence[Application], say: Say, ingress: Mapping[str, Any] | None = None
) -> bool:
    """Deploy these and wait until each runs or has failed; whether all run. Raises UserError.

    `ingress` are options of Ray Serve's HTTP, where it is wanted and nothing runs yet.
    """
    names = {application["name"] for application in applications}
    _declare(dashboard, lambda config: config["name"] not in names, applications, ingress)
    waiting = {application["name"]: application for application in applications}
    failed = False
    begin_s = time.monotonic()
    states: dict[str, str] = {}
    while waiting:
        time.sleep(_POLL_S)
        running = dashboard.instance().get("applications") or {}
        for name, application in list(waiting.items()):
            state = _State(application, running.get(name) or {})
            late = time.monotonic() - begin_s > _PLACEMENT_S
            problem = state.failure or (state.misfit(dashboard) if late and state.waits_for_node else "")
            if states.get(name) != state.line:
                states[name] = state.line
                say(state.line)
            if problem:
                say(f"{state.model}: {problem}")
            if problem or state.runs:
                failed = failed or bool(problem)
                del waiting[name]
    return not failed


def undeploy(dashboard: Dashboard, names: Iterable[str], say: Say) -> None:
    """End these applications, and Ray Serve itself where no other is left. Raises UserError."""
    going = set(names)
    running = dashboard.instance().get("applications") or {}
    for name in going - running.keys():
        say(f"{name} is not deployed")
    if going & running.keys():
        if running.keys() <= going:
            dashboard.shut_down()
        else:
            _declare(dashboard, lambda config: config["name"] not in going, [])
    deadline_s = time.monotonic() + _GONE_TIMEOUT_S
    while remainder := going & (dashboard.instance().get("applications") or {}).keys():
        if time.monotonic() > deadline_s:
            raise UserError(
                f"{', '.join(sorted(remainder))}: not gone after {_GONE_TIMEOUT_S:g} s; Ray goes on ending it"
            )
        time.sleep(_POLL_S)
    for name in sorted(going & running.keys()):
        say(f"{name} is gone")


def lines(dashboard: Dashboard) -> list[str]:
    """A line for each of our applications that Ray Serve has."""
    running = dashboard.instance().get("applications") or {}
    entries = [entry for entry in running.values() if _config(entry).get("import_path") == IMPORT_PATH]
    return [_State(_config(entry), entry).line for entry in entries]


def nodes(dashboard: Dashboard, name: str) -> set[str]:
    """The addresses of the nodes on which replicas of an application run."""
    entry = (dashboard.instance().get("applications") or {}).get(name) or {}
    return set(_State(_config(entry), entry).nodes)


def document(applications: Sequence[Application]) -> dict[str, Any]:
    """The applications as Ray Serve takes them (ServeDeploySchema), without its HTTP proxies."""
    return {"proxy_location": "Disabled", "applications": [dict(application) for application in applications]}


class _State:
    """How an application goes, as `entry` of Ray Serve's document tells it."""

    def __init__(self, application: Application, entry: Mapping[str, Any]) -> None:
        deployment: Mapping[str, Any] = (entry.get("deployments") or {}).get(DEPLOYMENT) or {}
        (self._deployment,) = application["deployments"]
        self.model: str = application["args"]["name"]
        self._status: str = entry.get("status") or "NOT_STARTED"
        self._message = deployment.get("message") or entry.get("message") or ""
        self._replicas: Sequence[Mapping[str, Any]] = deployment.get("replicas") or ()
        self._range: Mapping[str, Any] | None = self._deployment.get("autoscaling_config")
        self._count: int = self._deployment.get("num_replicas") or 1
        if self._range is not None:
            self._count = deployment.get("target_num_replicas") or self._range["min_replicas"]

    @property
    def line(self) -> str:
        """The model, and where its replicas run."""
        nodes = self.nodes
        at = f" ({', '.join(nodes)})" if nodes else ""
        bounds = f", {self._range['min_replicas']} to {self._range['max_replicas']} by load" if self._range else ""
        return f"{self.model}: {self._status.lower()}, {len(nodes)} of {self._count} replicas run{at}{bounds}"

    @property
    def nodes(self) -> list[str]:
        """The node of each replica that runs."""
        return [replica.get("node_ip") or "?" for replica in self._replicas if replica["state"] == "RUNNING"]

    @property
    def runs(self) -> bool:
        """Whether all of it runs."""
        return self._status == "RUNNING"

    @property
    def failure(self) -> str:
        """Why it does not start; "" as long as it may."""
        if self._status not in ("DEPLOY_FAILED", "UNHEALTHY"):
            return ""
        return _cause(str(self._message))

    @property
    def waits_for_node(self) -> bool:
        """Whether a replica has no node."""
        return self._status == "DEPLOYING" and self._homeless_count > 0

    @property
    def _homeless_count(self) -> int:
        return self._count - sum(1 for replica in self._replicas if replica.get("node_id"))

    def misfit(self, dashboard: Dashboard) -> str:
        """What the replicas need that no node has room for; "" where Ray has found a node, and starts them there."""
        options = self._deployment["ray_actor_options"]
        need = {"CPU": options["num_cpus"], "GPU": options["num_gpus"], "memory": options.get("memory", 0)}
        need = {name: amount for name, amount in need.items() if amount}
        nodes = dashboard.nodes()
        if any(node.fits(need) for node in nodes) or need not in dashboard.demands():
            return ""
        text = ", ".join(f"{amount:g} {name}" for name, amount in need.items())
        offers = "; ".join(_offer(node, need) for node in nodes)
        return (
            f"{self._homeless_count} of {self._count} replicas fit on no node: each needs {text}, and there are free "
            f"{offers}. Ray goes on looking for room; litport undeploy ends that"
        )


def _offer(node: Node, need: Mapping[str, float]) -> str:
    totals = {name: node.total.get(name, 0) for name in need}
    amounts = (f"{total - node.used.get(name, 0):g} of {total:g} {name}" for name, total in totals.items())
    return f"{', '.join(amounts)} on {node.ip}"


def _declare(
    dashboard: Dashboard,
    stays: Callable[[Application], bool],
    applications: Sequence[Application],
    ingress: Mapping[str, Any] | None = None,
) -> None:
    """Let these run, and of those that are declared already the ones that stay: Ray Serve ends all others."""
    instance = dashboard.instance()
    configs = [config for entry in (instance.get("applications") or {}).values() if (config := _config(entry))]
    whole = document([*(config for config in configs if stays(config)), *applications]) | dict(ingress or {})
    if configs and instance.get("proxy_location"):
        whole["proxy_location"] = instance["proxy_location"]  # it cannot change while Ray Serve runs
    dashboard.declare(whole)


def _config(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    return entry.get("deployed_app_config") or {}


def _cause(message: str) -> str:
    """The replica's own words in Ray's message, which has tracebacks around them; else the message in one line."""
    causes = [line.strip() for line in message.splitlines() if line.startswith("RuntimeError: ")]
    return causes[-1].removeprefix("RuntimeError: ") if causes else " ".join(message.split())
