"""LitServe as a child process: one server for one generic model.

The child's own module (`litserve_main`) loads the LitAPI and runs the LitServer; this side writes what it is
to serve into a file and reads back what it offers. It refuses to import LitServe or the API here: a plug-in that breaks
at import breaks its own process only.
"""

import json
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from configs.settings import LitServeModel
from servers.engines import allocator
from servers.engines.engine import Card, Command, Needs, ask, weight_bytes
from servers.interpreter import module_argv
from servers.process_group import Member

_GIB = 1024**3
# A worker with torch and transformers imported, and LitServe's manager and API server beside it.
_OVERHEAD_BYTES = _GIB


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
        spec = {
            "name": self.name,
            "api": chosen.api,
            "model_dir": None if model_dir is None else str(model_dir),
            "init": chosen.init,
            "accelerator": chosen.accelerator,
            "devices": chosen.devices,
            "workers_per_device": chosen.workers_per_device,
            "max_batch_size": chosen.max_batch_size,
            "batch_timeout": chosen.batch_timeout_s,
            "stream": chosen.stream,
            "timeout": chosen.timeout_s,
            "num_api_servers": chosen.api_server_count,
            "uds": str(socket),
            "card": str(self.card_file),
            "log_level": self.log_level,
        }
        spec_file = socket.with_suffix(".json")
        spec_file.write_text(json.dumps(spec))
        argv = module_argv("servers.engines.litserve_main", str(spec_file))
        metrics_dir = socket.with_suffix(".metrics")
        shutil.rmtree(metrics_dir, ignore_errors=True)  # what a child that died has counted is gone with it
        metrics_dir.mkdir()
        return Command(argv, {**self.environ(), "PROMETHEUS_MULTIPROC_DIR": str(metrics_dir), **chosen.env})

    async def warm(self, session: aiohttp.ClientSession) -> Card:
        """One prediction on the example that the settings or the API name; without one, LitServe's own health."""
        card = json.loads(self.card_file.read_text())
        path: str = card["api_path"]
        example = self.settings.example if self.settings.example is not None else card["example"]
        if example is not None:
            await ask(session, path, example)
        entry = {"id": self.name, "object": "model", "created": int(time.time()), "owned_by": "litport"}
        routes = frozenset({path}) if path.startswith("/v1/") else frozenset[str]()
        return Card(routes=routes, predict_path=path, listing=(entry,))

    def is_vital(self, member: Member, main_pid: int) -> bool:
        """The main process and what it started itself: workers, API servers, the manager. Not what a plug-in starts."""
        return main_pid in (member.pid, member.parent_pid)

    def needs(self, model_dir: Path | None) -> Needs:
        """Weights and Python with torch, once a worker."""
        workers = self.settings.workers_per_device or 1
        return Needs(1, workers * (2 * weight_bytes(model_dir) + _OVERHEAD_BYTES))

    def environ(self) -> Mapping[str, str]:
        """The variables that suit a worker that computes on the CPU; nothing that is set already is changed."""
        return {**self._thread_limit(), **allocator.environ()}

    def _thread_limit(self) -> Mapping[str, str]:
        # torch would give every worker all cores, and so would the next worker and the next model.
        if "OMP_NUM_THREADS" in os.environ:
            return {}
        sharing = (self.settings.workers_per_device or 1) * (2 if self.siblings > 1 else 1)
        return {"OMP_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) // sharing))}
