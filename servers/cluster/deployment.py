"""What runs within a replica of Ray Serve: one model, as `litport replica` serves it.

Ray imports `build`, from the installed package on each node. Gateways reach the replica at a port of its own, so that
Ray's HTTP is not in a request's path.
"""

import asyncio
import logging
import os
import shutil
import socket
import threading
from concurrent.futures import Future
from typing import Any

from configs.errors import UserError
from servers.cluster import scaling
from servers.gateway.address import address_of, bind
from servers.models.instance import State
from servers.platform import logs
from servers.platform.progress import Progress
from servers.platform.replica import Replica, narrow
from servers.platform.serve import raise_descriptor_limit
from servers.platform.targets import check_replica, load
from servers.processes.reaper import Reaper
from servers.processes.run_dir import make_run_dir

DEPLOYMENT = "model"
"""The name of the deployment in each application."""

PORTS = 100
"""How many ports from `cluster.replica_port` on are for replicas of one node."""

HANDOVER_S = 2.0
"""How long a replica that Ray ends goes on before it drains: gateways have not found its successor yet."""

_log = logging.getLogger("litport.cluster")


def build(arguments: dict[str, Any]) -> Any:
    """The application of the model `name` of a recipe that is given as text; Ray Serve calls it."""
    from ray import serve

    deployment = serve.deployment(
        ServedModel,
        name=DEPLOYMENT,
        max_constructor_retry_count=1,  # the same settings would fail in the same way
    )
    return deployment.bind(arguments["recipe"], arguments["name"])


class ServedModel:
    """The replica, on a loop and a thread of its own beside those of Ray; it is made once the model is ready.

    Raises RuntimeError with the cause where the model does not start.
    """

    async def __init__(self, recipe: str, name: str) -> None:  # type: ignore[misc] # Ray awaits it
        self._ready: Future[None] = Future()
        self._stopping: Future[None] = Future()
        self._replica: Replica | None = None
        self._thread = threading.Thread(target=self._run, args=(recipe, name), name="litport")
        _leave_rays_environment()
        self._run_dir = make_run_dir()
        self._thread.start()
        await asyncio.wrap_future(self._ready)

    def check_health(self) -> None:
        """Raise RuntimeError when the model has failed for good; Ray then replaces the replica."""
        if self._replica is None or not self._thread.is_alive():
            raise RuntimeError("the model's supervisor has ended")
        if self._replica.supervisor.fatal.is_set():
            raise RuntimeError(_failure(self._replica))

    def record_autoscaling_stats(self) -> dict[str, float]:
        """What Ray's choice of the number of replicas goes by; Ray calls it."""
        return {scaling.METRIC: self._replica.demand if self._replica is not None else 0.0}

    def __del__(self) -> None:
        """Let the requests in flight end, then the model's processes; Ray waits for it."""
        if not self._stopping.done():
            self._stopping.set_result(None)
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self, recipe: str, name: str) -> None:
        import uvloop

        try:
            uvloop.run(self._serve(recipe, name))
        except Exception as problem:
            if self._ready.done():
                _log.exception("the replica of %s failed", name)
            else:
                text = str(problem) if isinstance(problem, UserError) else f"{type(problem).__name__}: {problem}"
                self._ready.set_exception(RuntimeError(text))
        finally:
            shutil.rmtree(self._run_dir, ignore_errors=True)

    async def _serve(self, recipe: str, name: str) -> None:
        """Serve until `_stopping`. Raises UserError for settings that this node cannot serve."""
        import ray
        from ray import serve

        file = self._run_dir / "recipe.yaml"
        file.write_text(recipe, encoding="utf-8")
        host = ray.util.get_node_ip_address()
        loaded = narrow(load([str(file)], []), name, host)
        settings = loaded.settings
        logs.configure(settings.telemetry)
        secret = check_replica(loaded)
        raise_descriptor_limit(settings.limits.max_connections)
        listener = _bind(host, settings.cluster.replica_port)
        identity = serve.get_replica_context().replica_id.unique_id
        with Reaper(self._run_dir) as reaper, Progress(address_of(listener)) as progress:
            port = listener.getsockname()[1]
            replica = self._replica = Replica(settings, secret, self._run_dir, reaper, progress, port, identity)
            progress.watch(replica.supervisor)
            try:
                await replica.start(listener)
                await self._until_ready(replica)
                await asyncio.wrap_future(self._stopping)
                if replica.has_gateways:
                    await asyncio.sleep(HANDOVER_S)
                await replica.drain()
            finally:
                await replica.stop()

    async def _until_ready(self, replica: Replica) -> None:
        """Return once the model is ready. Raises UserError where it has failed, or Ray ends the replica."""
        while not replica.supervisor.ready:
            if replica.supervisor.fatal.is_set():
                raise UserError(_failure(replica))
            if self._stopping.done():
                raise UserError("Ray ended the replica before its model was ready")
            await asyncio.sleep(0.05)
        self._ready.set_result(None)


def _failure(replica: Replica) -> str:
    (model,) = replica.supervisor.models.values()
    failures = [instance.detail for instance in model.instances if instance.state is State.FAILED]
    return f"models.{model.name}: {'; '.join(failures)}"


def _bind(host: str, first_port: int) -> socket.socket:
    """A listening socket on the first port that is free. Raises UserError."""
    for port in range(first_port, first_port + PORTS):
        try:
            return bind(host, port, "cluster.replica_port")
        except UserError as error:
            problem = error
    raise UserError(f"cluster.replica_port: none of {PORTS} ports from {first_port} on can be bound: {problem}")


def _leave_rays_environment() -> None:
    """Drop what Ray sets for the model's processes, and hide the GPUs that it has not given.

    Ray sets OMP_NUM_THREADS to the processors that it sets aside, and leaves all GPUs visible to who asked for none.
    """
    import ray

    context = ray.get_runtime_context()
    resources = context.get_assigned_resources()
    if os.environ.get("OMP_NUM_THREADS") == str(max(1, int(resources.get("CPU", 0)))):
        del os.environ["OMP_NUM_THREADS"]
    if not resources.get("GPU"):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
