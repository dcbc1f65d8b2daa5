"""A dashboard of Ray that answers what a test says, for clients of its REST API."""

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from servers.cluster.application import application_name
from servers.cluster.dashboard import Dashboard

TOKEN = "a-token-of-a-cluster"


@dataclass
class FakeDashboard:
    """Answers with `applications`, `nodes` and their `load`.

    `declared` are the documents that it was given, and `reads` counts how often somebody asked for the applications.
    """

    url: str = ""
    status: int = 200
    applications: dict[str, Any] = field(default_factory=dict)
    nodes: list[dict[str, Any]] = field(default_factory=list)
    load: dict[str, Any] = field(default_factory=dict)
    declared: list[dict[str, Any]] = field(default_factory=list)
    deleted: int = 0
    reads: int = 0

    def client(self, token: str = TOKEN) -> Dashboard:
        return Dashboard(self.url, token)

    def run(
        self,
        model: str,
        *replicas: str,
        state: str = "RUNNING",
        status: str = "RUNNING",
        message: str = "",
        target: int | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        """Let the model have these replicas on a host, of `target`."""
        rows = [{"replica_id": replica, "node_ip": host, "node_id": "1", "state": "RUNNING"} for replica in replicas]
        entry = self.applications.setdefault(application_name(model), {})
        entry |= {"status": status, "deployments": {"model": {"message": message, "replicas": rows}}}
        if target is not None:
            entry["deployments"]["model"]["target_num_replicas"] = target


@contextlib.contextmanager
def fake_dashboard() -> Iterator[FakeDashboard]:
    """Answer on a port of the loopback interface until the block ends."""
    fake = FakeDashboard()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self, document: object) -> None:
            status = fake.status if self.headers["authorization"] == f"Bearer {TOKEN}" else 401
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            if self.path.startswith("/api/v0/nodes"):
                self._answer({"data": {"result": {"result": fake.nodes}}})
            elif self.path == "/api/cluster_status":
                self._answer({"data": {"clusterStatus": {"loadMetricsReport": fake.load}}})
            else:
                fake.reads += 1
                self._answer({"applications": fake.applications})

        def do_PUT(self) -> None:
            document = json.loads(self.rfile.read(int(self.headers["content-length"])))
            fake.declared.append(document)
            configs = {config["name"]: config for config in document["applications"]}
            fake.applications = {name: fake.applications.get(name, {}) for name in configs}
            for name, config in configs.items():
                fake.applications[name]["deployed_app_config"] = config
            self._answer({})

        def do_DELETE(self) -> None:
            fake.deleted += 1
            fake.applications = {}
            self._answer({})

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
