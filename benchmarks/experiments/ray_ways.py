"""An embedding model on Ray behind `litport gateway`, behind Ray's own HTTP proxy, and in `litport serve`.

    python -m benchmarks.experiments.ray_ways --ray http://127.0.0.2:8265

Ray must run on this machine, with room for 4 CPUs and no application, and its packages must be in this environment.
Where the node was started with RAY_SERVE_ENABLE_HA_PROXY=1, HAProxy stands where Ray's proxy would be.
All sides have the same LitAPI, batches and allocator settings, and two workers of one thread. One after the other
answers, in an order and back (A B C C B A), so that drift of the machine cancels. Processor time is that of the
processes between a request and its answer: the gateway, the proxy, the replicas and what these have started.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.experiments import peer_servers
from benchmarks.experiments.blocks import Block, block_of, print_blocks
from benchmarks.experiments.closed_loop import Client
from configs.settings import Cluster
from servers.cluster import application, dashboard, rollout
from servers.cluster.dashboard import Dashboard
from servers.engines import allocator
from servers.platform.targets import load
from servers.processes.interpreter import module_argv
from servers.processes.proc import cpu_s
from servers.store import Store

_MODEL = "all-minilm-l6-v2"
_BATCH, _WAIT_S = 8, 0.01
_SIDES = ("serve", "gateway", "proxy")
_PROXY_PORT = 8149
_INGRESS = ("ray::ProxyActor", "ray::HAProxyManager")  # the second has HAProxy as its child
_WARM_UP_S = 2.0


def build(arguments: dict[str, Any]) -> Any:
    """What a user of Ray Serve writes: the same LitAPI, with Ray's batches; Ray calls it."""
    from ray import serve

    class Embedding:
        """Answers the requests that come through Ray's proxy."""

        def __init__(self, folder: str) -> None:
            import torch

            self._model = peer_servers.Model("embedding", folder, _BATCH)
            torch.set_num_threads(1)

        @serve.batch(max_batch_size=_BATCH, batch_wait_timeout_s=_WAIT_S)  # type: ignore[untyped-decorator] # Ray's
        async def answer(self, bodies: list[bytes]) -> list[dict[str, Any]]:
            """The answers of one batch."""
            return self._model.answer(bodies)

        async def __call__(self, request: Any) -> Any:
            return await self.answer(await request.body())

    options = {"num_cpus": 1, "runtime_env": {"env_vars": {"OMP_NUM_THREADS": "1", **allocator.environ()}}}
    deployment = serve.deployment(Embedding, num_replicas=2, max_ongoing_requests=64, ray_actor_options=options)
    return deployment.bind(arguments["folder"])


@contextmanager
def _litport(command: str, recipe: Path, port: int) -> Iterator[psutil.Process]:
    argv = [*module_argv("litport", command, str(recipe)), "--server.port", str(port)]
    environ = {**os.environ, "LITPORT_TELEMETRY__METRICS_PORT": "0"}
    with tempfile.TemporaryFile() as log, subprocess.Popen(argv, stdout=log, stderr=log, env=environ) as process:
        try:
            yield psutil.Process(process.pid)
        finally:
            process.terminate()


def _recipe(folder: Path, arguments: argparse.Namespace) -> Path:
    secret = folder / "secret"
    secret.write_text("0" * 64)
    secret.chmod(0o600)
    model = {
        "engine": "litserve",
        "api": "embedding",
        "source": _MODEL,
        "workers_per_device": 2,
        "max_batch_size": _BATCH,
        "batch_timeout_s": _WAIT_S,
        "resources": {"cpus": 2},
    }
    file = folder / "recipe.yaml"
    sections = {
        "models": {_MODEL: model},
        "cluster": {"dashboard": arguments.ray, "secret_file": str(secret)},
        "server": {"cache_dir": str(arguments.cache_dir.absolute())},
    }
    file.write_text(json.dumps(sections))
    return file


def _replicas(ray: Dashboard, name: str) -> list[psutil.Process]:
    """The processes of an application, and Ray's ingress for the one that uses them."""
    instance = ray.instance()
    deployments = instance["applications"][name]["deployments"].values()
    rows = [replica["pid"] for deployment in deployments for replica in deployment["replicas"]]
    processes = [psutil.Process(pid) for pid in rows]
    if name == "proxy":
        titles = ((process, process.info["cmdline"] or [""]) for process in psutil.process_iter(["cmdline"]))
        processes += [process for process, title in titles if title[0].startswith(_INGRESS)]
    return processes


@dataclass(frozen=True)
class _Side:
    """A side, and the processes between a request and its answer."""

    name: str
    url: str
    roots: Sequence[psutil.Process]

    def client(self, users: int) -> Client:
        """Its users."""
        return Client(self.name, self.url, peer_servers.bodies("embedding", users), users)

    def run(self, users: int, seconds: float) -> Block:
        """A block under load."""
        asyncio.run(self.client(users).run(_WARM_UP_S))
        pids = [member.pid for root in self.roots for member in (root, *root.children(recursive=True))]
        before_s = cpu_s(pids)
        latencies_s, elapsed_s = asyncio.run(self.client(users).run(seconds))
        return block_of(latencies_s, elapsed_s, cpu_s(pids) - before_s)


def measure(sides: Sequence[_Side], arguments: argparse.Namespace) -> dict[str, list[Block]]:
    """The blocks of each side and number of users."""
    blocks: dict[str, list[Block]] = {}
    for users in (16, 1):
        for number in range(arguments.rounds):
            for order in (sides, list(reversed(sides))):
                for side in order:
                    block = side.run(users, arguments.seconds)
                    blocks.setdefault(f"{side.name}, {users} users", []).append(block)
                    print(number, users, side.name, f"{block.requests_per_s:.1f}/s", flush=True)
    return blocks


def main() -> int:
    """Print a table, the load of the machine, and as the last line one JSON document."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--ray", required=True, metavar="ADDRESS", help="of Ray's dashboard")
    parser.add_argument("--cache-dir", type=Path, default=Path(".cache/test-models"), help="the store")
    parser.add_argument("--sides", nargs="+", choices=_SIDES, default=_SIDES)
    parser.add_argument("--port", type=int, default=8150, help="the first of two")
    parser.add_argument("--rounds", type=int, default=2, help="repetitions of the order and back")
    parser.add_argument("--seconds", type=float, default=6, help="length of a block")
    arguments = parser.parse_args()
    folder = Store(arguments.cache_dir).find(_MODEL)
    if folder is None:
        raise SystemExit(f"{arguments.cache_dir} has no {_MODEL}; see `litport models pull`")
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        recipe = _recipe(Path(temporary), arguments)
        ray = stack.enter_context(dashboard.connect(Cluster(), arguments.ray))
        native = {
            "name": "proxy",
            "route_prefix": "/",
            "import_path": "benchmarks.experiments.ray_ways:build",
            "args": {"folder": str(folder.absolute())},
        }
        options = {"proxy_location": "EveryNode", "http_options": {"host": "127.0.0.1", "port": _PROXY_PORT}}
        stack.callback(ray.shut_down)
        ray.declare({**options, "applications": [native]})
        if not rollout.deploy(ray, application.applications_of(load([str(recipe)], [])), print):
            return 1
        sides = []
        for number, name in enumerate(arguments.sides):
            port, path, roots = arguments.port + number, "/v1/embeddings", []
            if name == "proxy":
                port, path = _PROXY_PORT, "/"
            else:
                roots.append(stack.enter_context(_litport(name, recipe, port)))
            side = _Side(name, f"http://127.0.0.1:{port}{path}", roots)
            asyncio.run(side.client(1).wait())
            if name != "serve":
                roots += _replicas(ray, "proxy" if name == "proxy" else application.application_name(_MODEL))
            sides.append(side)
        blocks = measure(sides, arguments)
    print_blocks(blocks, load_before)
    return 0


if __name__ == "__main__":
    sys.exit(main())
