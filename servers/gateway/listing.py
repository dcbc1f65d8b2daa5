"""What the front door says of the models: OpenAI's model list, readiness, and the status that `litport status` shows.

Reading only; nothing here changes a model, and no key or request content appears.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from servers.gateway import hardware
from servers.models.model import Model
from servers.models.supervisor import Supervisor
from servers.processes.group import ProcessGroup
from servers.telemetry import Sample


@dataclass(frozen=True)
class About:
    """What a platform says of itself that does not change while it runs; `started_at` is Unix time."""

    version: str
    address: str
    metrics_address: str | None = None
    started_at: float = field(default_factory=time.time)


def model_list(supervisor: Supervisor) -> dict[str, Any]:
    """`GET /v1/models`: every model, ready or not, with its `kind` (engine) and `state` beside OpenAI's fields."""
    return {"object": "list", "data": [entry for model in supervisor.models.values() for entry in entries(model)]}


def entries(model: Model) -> list[dict[str, Any]]:
    """The model's entries: its own, and one for each adapter that vLLM lists beside it."""
    plain = {"id": model.name, "object": "model", "created": int(model.choose().since), "owned_by": "litport"}
    listing = model.card.listing if model.card else [plain]
    return [{**entry, "kind": model.engine.kind, "state": model.state.value} for entry in listing]


def entry(model: Model, name: str) -> dict[str, Any]:
    """`GET /v1/models/<name>`: the one entry of that name."""
    return next(entry for entry in entries(model) if entry["id"] == name)


def readiness(supervisor: Supervisor, draining: bool) -> dict[str, Any]:
    """`GET /ready`: whether every required model is ready, and each one's state."""
    states = {model.name: model.state.value for model in supervisor.models.values()}
    return {"ready": supervisor.ready and not draining, "models": states}


def status(
    about: About,
    supervisor: Supervisor,
    *,
    in_flight: int,
    samples: Sequence[Sample],
    nvml_error: str | None,
) -> dict[str, Any]:
    """`GET /status`: what runs where, and how busy it is.

    Memory is resident bytes, summed over a model's processes. `hardware` and `cpu_cores` come from the last of the
    `samples`; `recent` is about the requests that ended within half a minute.
    """
    cores = hardware.cpu_cores(samples)
    return {
        "version": about.version,
        "address": about.address,
        "metrics_address": about.metrics_address,
        "uptime_s": round(time.time() - about.started_at, 1),
        "in_flight": in_flight,
        "hardware": hardware.summary(samples, nvml_error),
        "models": [
            {
                **_status(model),
                "cpu_cores": cores.get(name),
                "recent": model.recent.summary(time.monotonic()),
            }
            for name, model in supervisor.models.items()
        ],
    }


def paths(model: Model) -> list[str]:
    """The paths at which the front door serves the model ([] while it is not up)."""
    if model.card is None:
        return []
    predict = [f"/predict/{model.name}"] if model.card.predict_path else []
    return sorted(model.card.routes) + predict


def _status(model: Model) -> dict[str, Any]:
    instance = model.choose()
    members = ProcessGroup(instance.group_id).members() if instance.group_id else []
    return {
        "name": model.name,
        "kind": model.engine.kind,
        "source": model.settings.source,
        "state": model.state.value,
        "detail": instance.detail,
        "in_state_s": round(time.time() - instance.since, 1),
        "phases_s": {phase: round(spent_s, 2) for phase, spent_s in instance.phases_s.items()},
        "restarts": model.restarts,
        "required": model.settings.required,
        "running": model.admission.running,
        "waiting": model.admission.waiting,
        "socket": str(instance.socket),
        "log_file": str(instance.log_file),
        "group_id": instance.group_id,
        "process_count": len(members) or None,
        "memory_bytes": sum(member.resident_bytes for member in members) or None,
        "paths": paths(model),
    }
