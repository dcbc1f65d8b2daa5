"""Ray's dashboard, which has the REST API of Ray Serve. No package of Ray is needed to ask it."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from pydantic import ValidationError

from configs.cluster import Cluster
from configs.errors import UserError

_PATH = "/api/serve/applications/"
_NODES_PATH = "/api/v0/nodes?detail=true"
_LOAD_PATH = "/api/cluster_status"
_TIMEOUT_S = 10.0
# Deploying waits for the first start of Ray Serve itself.
_CHANGE_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Node:
    """A living node of the cluster, what it offers in all, such as {"CPU": 8.0}, and what of that is taken."""

    ip: str
    total: Mapping[str, float]
    used: Mapping[str, float]

    def fits(self, need: Mapping[str, float]) -> bool:
        """Whether it has room for so much now."""
        return all(self.total.get(name, 0) - self.used.get(name, 0) >= amount for name, amount in need.items())


class Dashboard:
    """The dashboard at an address; a context manager. Every method raises UserError where it cannot be asked."""

    def __init__(self, address: str, token: str | None) -> None:
        import httpx

        self.address = address
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self._client = httpx.Client(base_url=address, headers=headers, timeout=_TIMEOUT_S, trust_env=False)

    def __enter__(self) -> "Dashboard":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._client.close()

    def instance(self) -> dict[str, Any]:
        """What runs on Ray Serve: the document of its REST API (ServeInstanceDetails)."""
        document: dict[str, Any] = self._ask("GET", _PATH)
        return document

    def nodes(self) -> list[Node]:
        """The nodes that are alive."""
        usage = self._load()["usageByNode"]
        return [
            Node(
                row["node_ip"],
                row.get("resources_total") or {},
                {name: used for name, (used, _) in usage.get(row["node_id"], {}).items()},
            )
            for row in self._ask("GET", _NODES_PATH)["data"]["result"]["result"]
            if row["state"] == "ALIVE"
        ]

    def demands(self) -> list[dict[str, float]]:
        """What waits for a node that has room for it, each as the resources that it needs."""
        return [dict(shape) for shape, _ in self._load()["resourceDemand"]]

    def _load(self) -> dict[str, Any]:
        report = self._ask("GET", _LOAD_PATH)["data"]["clusterStatus"] or {}
        return {"usageByNode": {}, "resourceDemand": [], **(report.get("loadMetricsReport") or {})}

    def declare(self, document: Mapping[str, Any]) -> None:
        """Let Ray Serve run the applications of this document (ServeDeploySchema), and no other declared ones."""
        self._ask("PUT", _PATH, dict(document))

    def shut_down(self) -> None:
        """End Ray Serve, and with it all applications."""
        self._ask("DELETE", _PATH)

    def _ask(self, method: str, path: str, document: dict[str, Any] | None = None) -> Any:
        import httpx

        timeout_s = _TIMEOUT_S if method == "GET" else _CHANGE_TIMEOUT_S
        try:
            answer = self._client.request(method, path, json=document, timeout=timeout_s)
        except httpx.HTTPError as problem:
            raise UserError(f"Ray's dashboard at {self.address} does not answer: {_cause(problem)}") from None
        if answer.status_code in (401, 403):
            raise UserError(
                f"Ray's dashboard at {self.address} refuses the token ({answer.status_code}); set cluster.token_file "
                "or LITPORT_CLUSTER__TOKEN_FILE"
            )
        if answer.status_code != 200:
            raise UserError(f"Ray's dashboard at {self.address} answers {answer.status_code}: {answer.text[:2000]}")
        return answer.json() if method == "GET" else None


def _cause(problem: Exception) -> str:
    """The operating system's words, without their number."""
    texts = (getattr(one, "strerror", None) for one in (problem, problem.__cause__, problem.__context__))
    return next(filter(None, texts), None) or re.sub(r"^\[Errno -?\d+\] ", "", str(problem)) or type(problem).__name__


def connect(cluster: Cluster, address: str | None) -> Dashboard:
    """The dashboard at this address, or else at that of the settings. Raises UserError where there is none."""
    url = address or cluster.dashboard
    if url is None:
        raise UserError("cluster.dashboard: expected the address of Ray's dashboard, got none; --ray names one")
    try:
        checked = Cluster.model_validate({"dashboard": url if "://" in url else f"http://{url}"}).dashboard
    except ValidationError:
        raise UserError(
            f"--ray: expected scheme, host and port alone, such as http://10.0.0.7:8265, got {url!r}"
        ) from None
    return Dashboard(checked or url, _token(cluster))


def _token(cluster: Cluster) -> str | None:
    """The token of the cluster, from where Ray itself has it, too. Raises UserError for a file that cannot be read."""
    default = Path.home() / ".ray" / "auth_token"
    path = cluster.token_file or os.environ.get("RAY_AUTH_TOKEN_PATH")
    if path is None and "RAY_AUTH_TOKEN" in os.environ:
        return os.environ["RAY_AUTH_TOKEN"].strip()
    if path is None and not default.is_file():
        return None
    file = Path(path or default)
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as problem:
        raise UserError(f"cluster.token_file: expected a file with a token at {file}, got {_cause(problem)}") from None
