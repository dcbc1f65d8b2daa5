"""LitServe as a child process: one server for one generic model.

The child's own module (`litserve_main`) loads the LitAPI and runs the LitServer; this side writes what it is
to serve into a file and reads back what it offers. It refuses to import LitServe or the API here: a plug-in that breaks
at import breaks its own process only.
"""

import json
import os
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from configs.errors import UserError
from configs.settings import LitServeModel
from servers.apis import registry
from servers.engines import allocator
from servers.engines.base import CanaryError, Card, Command, Needs, ask, weight_bytes
from servers.engines.kind import EngineKind, Site, check_source
from servers.processes.group import Member
from servers.processes.interpreter import module_argv
from servers.telemetry import tracing

_GIB = 1024**3
# A worker with torch and transformers imported, and LitServe's manager and API server beside it.
_OVERHEAD_BYTES = _GIB
# Fewer would leave a quick model idle while requests are on their way to it.
_LEAST_RUNNING = 16
# An async API works on as many requests as it is given.
_ASYNC_RUNNING = 256


@dataclass(frozen=True)
class LitServeEngine:
    """LitServe for the model `name`; `card_file` is where the child says what it offers.

    `siblings` is how many models share the machine's cores.
    """

    name: str
    settings: LitServeModel
    card_file: Path
    log_level: str
    siblings: int = 1
    kind: str = "litserve"

    def command(self, model_dir: Path | None, socket: Path) -> Command:
        """Write what is to be served and return the child that reads it."""
        chosen = self.settings
        environ = os.environ | chosen.env
        spec = {
            **api_spec(chosen, model_dir),
            "name": self.name,
            "timeout": chosen.timeout_s,
            "cancel_grace_s": chosen.cancel_grace_s,
            "num_api_servers": chosen.api_server_count,
            "uds": str(socket),
            "card": str(self.card_file),
            "log_level": self.log_level,
            "traces": tracing.is_on(environ),
        }
        spec_file = socket.with_suffix(".json")
        spec_file.write_text(json.dumps(spec))
        argv = module_argv("servers.engines.litserve.child.main", str(spec_file))
        metrics_dir = socket.with_suffix(".metrics")
        shutil.rmtree(metrics_dir, ignore_errors=True)  # what a child that died has counted is gone with it
        metrics_dir.mkdir()
        own = {**self.environ(), "PROMETHEUS_MULTIPROC_DIR": str(metrics_dir)}
        return Command(argv, {**own, **chosen.env, **tracing.child_environ(self.name, environ)})

    async def warm(self, session: aiohttp.ClientSession) -> Card:
        """The canary, and what the child says of itself."""
        said = json.loads(self.card_file.read_text())
        path: str = said["api_path"]
        async with session.get("/openapi.json") as response:
            openapi = await response.json()
        card = Card(
            routes=frozenset({path}) if path.startswith("/v1/") else frozenset[str](),
            predict_path=path,
            listing=({"id": self.name, "object": "model", "created": int(time.time()), "owned_by": "litport"},),
            openapi=openapi,
            max_running=self._max_running(said),
            example=self.settings.example if self.settings.example is not None else said["example"],
        )
        await self.canary(session, card)
        return card

    async def canary(self, session: aiohttp.ClientSession, card: Card) -> None:
        """One prediction on the example that the settings or the API name; without one, LitServe's own health."""
        if card.example is not None:
            assert card.predict_path is not None
            await ask(session, card.predict_path, card.example)
            return
        async with session.get("/health") as response:
            if response.status != 200:
                raise CanaryError(f"GET /health was answered {response.status}")

    def answers_in_parts(self) -> bool:
        """A worker answers when it has predicted, however long that takes: until then nobody can tell."""
        return False

    def is_vital(self, member: Member, main_pid: int) -> bool:
        """The main process and what it started itself: workers, API servers, the manager. Not what a plug-in starts."""
        return main_pid in (member.pid, member.parent_pid) and "resource_tracker" not in member.title

    def needs(self, model_dir: Path | None) -> Needs:
        """Weights and Python with torch, once a worker."""
        workers = self.settings.workers_per_device or 1
        return Needs(1, workers * (2 * weight_bytes(model_dir) + _OVERHEAD_BYTES))

    def _max_running(self, said: Mapping[str, Any]) -> int:
        # What its workers have in hand and as much again, so that none waits for the next; LitServe's queue is not
        # bounded and knows no callers, so the rest waits at the front door.
        if said["is_async"]:
            return _ASYNC_RUNNING
        devices = self.settings.devices
        count = len(devices) if isinstance(devices, list) else devices if isinstance(devices, int) else 1
        return max(_LEAST_RUNNING, 2 * count * (self.settings.workers_per_device or 1) * int(said["max_batch_size"]))

    def environ(self) -> Mapping[str, str]:
        """The variables that suit a worker that computes on the CPU; nothing that is set already is changed."""
        return {**self._thread_limit(), **allocator.environ()}

    def _thread_limit(self) -> Mapping[str, str]:
        # torch would give every worker all cores, and so would the next worker and the next model.
        if "OMP_NUM_THREADS" in os.environ:
            return {}
        sharing = (self.settings.workers_per_device or 1) * (2 if self.siblings > 1 else 1)
        return {"OMP_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) // sharing))}


def api_spec(settings: LitServeModel, model_dir: Path | None) -> dict[str, Any]:
    """The API and how LitServe runs it, as `litserve_main.ChildSpec` names that; the harness runs plain LitServe so."""
    return {
        "api": settings.api,
        "model_dir": None if model_dir is None else str(model_dir),
        "init": settings.init,
        "accelerator": settings.accelerator,
        "devices": settings.devices,
        "workers_per_device": settings.workers_per_device,
        "max_batch_size": settings.max_batch_size,
        "batch_timeout": settings.batch_timeout_s,
        "stream": settings.stream,
    }


def _make(name: str, settings: LitServeModel, site: Site) -> LitServeEngine:
    card_file = site.socket.with_suffix(".card.json")
    return LitServeEngine(name, settings, card_file, site.settings.telemetry.log_level, len(site.settings.models))


def _check_model(settings: LitServeModel) -> Iterable[tuple[str, str]]:
    # An API of a plug-in knows which files it opens.
    yield from check_source(settings.source, needs_config=False, refuses_pickled=settings.api in registry.BUILT_IN)
    try:
        registry.check(settings.api, settings.init, has_source=settings.source is not None)
    except UserError as problem:
        yield "api", str(problem)


LITSERVE = EngineKind(LitServeModel, _make, _check_model, harness="benchmarks.rungs.litserve:HARNESS")
