"""A LitAPI as a child process: one process tree for one generic model.

The child's module (`main`) loads the LitAPI and serves it, by the worker host or by LitServe's own server. This side
writes the child's specification into a file and reads its card. Neither LitServe nor the API is imported here, so that
a plug-in that fails at its import affects its own process only.
"""

import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from configs.settings import LitServeModel
from servers.apis import equality
from servers.apis.equality import Variant
from servers.engines import allocator
from servers.engines.base import Card, Command, Needs, get, post, weight_bytes
from servers.engines.connection import Connection
from servers.engines.litserve.connection import ApiConnection
from servers.engines.litserve.host.answer import Policy
from servers.engines.litserve.rules import SpecRules
from servers.processes.group import Member
from servers.processes.interpreter import module_argv
from servers.telemetry import tracing

_GIB = 1024**3
# A worker that has imported torch and transformers, and the process that keeps it.
_OVERHEAD_BYTES = _GIB
# With fewer, a quick model would idle while requests are on their way to it.
_MIN_RUNNING = 16
# The checks whose inputs are part of the proof ask for a prediction, and expect one.
_PREDICTS = (None, "/predict", "/v1/embeddings")
_OK = 200
# An async API works on all requests that it gets.
_ASYNC_RUNNING = 256


@dataclass(frozen=True)
class LitServeEngine:
    """The LitAPI of the model `name`; the child writes its card into `card_file`.

    `siblings` is the number of instances of all models that share the machine's cores. `exports` keeps
    exports for other runtimes.
    """

    name: str
    settings: LitServeModel
    card_file: Path
    log_level: str
    siblings: int = 1
    exports: Path | None = None
    kind: str = "litserve"

    def command(self, model_dir: Path | None, socket: Path) -> Command:
        """Write the specification and return the child that reads it."""
        settings = self.settings
        environ = os.environ | settings.env
        spec = {
            **api_spec(settings, model_dir, self.exports),
            "name": self.name,
            "serving": settings.serving,
            "uds": str(socket),
            "card": str(self.card_file),
            "timeout": settings.timeout_s,
            "traces": tracing.is_on(environ),
            "log_level": self.log_level,
            "num_api_servers": settings.api_server_count,
            "callbacks": settings.callbacks,
            "loggers": settings.loggers,
            "max_restarts": settings.max_restarts,
            "start_timeout_s": settings.start_timeout_s,
            "isolate_failures": settings.isolate_failures,
        }
        spec_file = socket.with_suffix(".json")
        spec_file.write_text(json.dumps(spec))
        self.card_file.unlink(missing_ok=True)  # the connection waits for the new one
        equality.remove(self.card_file)
        argv = module_argv("servers.engines.litserve.main", str(spec_file))
        return Command(argv, {**self.environ(), **settings.env, **tracing.child_environ(self.name, environ)})

    def connect(self, socket: Path) -> Connection:
        """The connection reads from the card where the workers, or LitServe's server, listen."""
        settings = self.settings
        # A canary pings before it asks for a prediction, and has this time for both.
        ping_timeout_s = settings.canary_timeout_s / 2
        policy = Policy(self.name, settings.batch_timeout_s, settings.cancel_grace_s, ping_timeout_s)
        return ApiConnection(self.card_file, socket, policy, settings.timeout_s)

    async def warm(self, connection: Connection) -> Card:
        """The canary, then the child's own description."""
        fields = json.loads(self.card_file.read_text())
        path: str = fields["api_path"]
        is_openai = path.startswith("/v1/")
        measured = equality.read(self.card_file)
        openapi = json.loads(await get(connection, "/openapi.json"))
        card = Card(
            routes=frozenset({path}) if is_openai else frozenset[str](),
            predict_path=path,
            listing=({"id": self.name, "object": "model", "created": int(time.time()), "owned_by": "litport"},),
            openapi=openapi,
            max_running=self._max_running(fields),
            example=self.settings.example if self.settings.example is not None else fields["example"],
            rules=SpecRules(openapi) if is_openai else None,
            serving=fields["serving"],
            note="; ".join(filter(None, (_note(fields), measured.note if measured else ""))),
            equality=measured,
            tensors=fields.get("tensors"),
        )
        await self.canary(connection, card)
        return card

    async def canary(self, connection: Connection, card: Card) -> None:
        """One prediction on the example of the settings or of the API; without one, the health route.

        On the host a ping of each worker at rest comes first, and workers that are not at rest are not asked: work that
        was cancelled has a limit of its own.
        """
        assert isinstance(connection, ApiConnection)
        if card.serving == "host" or card.example is None:
            await get(connection, "/health")
        if card.example is not None and connection.is_at_rest:
            assert card.predict_path is not None
            await post(connection, card.predict_path, card.example)

    def answers_in_parts(self) -> bool:
        """False: a worker answers when it has predicted, however long that takes."""
        return False

    def is_vital(self, member: Member, main_pid: int) -> bool:
        """True for the main process, and for workers, API servers and the manager of LitServe's own server.

        The host replaces its workers itself; what a plug-in starts is its own affair.
        """
        if json.loads(self.card_file.read_text())["serving"] == "host":
            return member.pid == main_pid
        return main_pid in (member.pid, member.parent_pid) and "resource_tracker" not in member.title

    def needs(self, model_dir: Path | None) -> Needs:
        """Weights, and Python with torch, for each worker."""
        workers = self.settings.workers_per_device or 1
        return Needs(1, workers * (2 * weight_bytes(model_dir) + _OVERHEAD_BYTES))

    def _max_running(self, card: Mapping[str, Any]) -> int:
        # Twice what the workers work on, so that none waits for its next batch. Behind admission nobody distinguishes
        # callers, so further requests wait there.
        if card["is_async"]:
            return _ASYNC_RUNNING
        devices = self.settings.devices
        count = len(devices) if isinstance(devices, list) else devices if isinstance(devices, int) else 1
        return max(_MIN_RUNNING, 2 * count * (self.settings.workers_per_device or 1) * int(card["max_batch_size"]))

    def environ(self) -> Mapping[str, str]:
        """The variables for a worker that computes on the CPU; those that are set already stay."""
        # With a key of its own LitServe's server would refuse the front door, which has checked the client's.
        return {**self._thread_limit(), **allocator.environ(), "LIT_SERVER_API_KEY": ""}

    def _thread_limit(self) -> Mapping[str, str]:
        # By default torch uses all cores in every worker of every model.
        if "OMP_NUM_THREADS" in os.environ:
            return {}
        replicas = self.settings.replica_count
        sharing = (self.settings.workers_per_device or 1) * (replicas + 1 if self.siblings > replicas else replicas)
        return {"OMP_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) // sharing))}


def _note(card: Mapping[str, Any]) -> str:
    if card["serving"] == "host":
        return ""
    return f"on LitServe's own server: {card['reason'] or 'serving: litserve'}"


def variant_of(settings: LitServeModel, exports: Path | None) -> Variant:
    """How the model should compute, and what the proof accepts; the harness uses it too."""
    return Variant(
        precision=settings.precision,
        cosine=settings.accept.cosine,
        top1=settings.accept.top1,
        falls_back=settings.on_failed_proof == "eager",
        runtime=settings.runtime,
        exports=None if exports is None else str(exports),
        options=settings.runtime_options,
        checks=[
            {"name": name, "body": check.body, "file": None if check.file is None else str(check.file)}
            for name, check in settings.checks.items()
            if check.status == _OK and check.path in _PREDICTS
        ],
    )


def api_spec(settings: LitServeModel, model_dir: Path | None, exports: Path | None = None) -> dict[str, Any]:
    """The API and how LitServe runs it, as fields of `api.ApiSpec`; the harness uses it too."""
    return {
        "api": settings.api,
        "model_dir": None if model_dir is None else str(model_dir),
        "init": settings.init,
        "variant": asdict(variant_of(settings, exports)),
        "accelerator": settings.accelerator,
        "devices": settings.devices,
        "workers_per_device": settings.workers_per_device,
        "max_batch_size": settings.max_batch_size,
        "batch_timeout": settings.batch_timeout_s,
        "stream": settings.stream,
    }
