"""`/status` and `/ready`: what runs where, and how busy it is.

It reads models and samples of the machine and changes nothing. No key and no content of a request appears in it.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from clients import documents
from clients.residence import Residence
from clients.version import OtherVersion
from servers.gateway.directory import paths_of
from servers.models.instance import Instance, State
from servers.models.model import Model
from servers.models.residence import UNLOAD_REASONS
from servers.processes.group import ProcessGroup
from servers.telemetry import Sample
from servers.telemetry.memory import memory

if TYPE_CHECKING:
    from servers.telemetry.nvml import GpuSample


@dataclass(frozen=True)
class About:
    """What a platform reports of itself that does not change while it runs; `started_at` is Unix time."""

    version: str
    address: str
    metrics_address: str | None = None
    started_at: float = field(default_factory=time.time)


def status(
    about: About,
    models: Iterable[Model],
    *,
    in_flight: int,
    samples: Sequence[Sample],
    nvml_error: str | None,
    next_out: Model | None = None,
    beside: Iterable[Model] = (),
) -> documents.Status:
    """`GET /status`. `hardware` and `cpu_cores` come from the last of the `samples`.

    `next_out` is the model that would be unloaded next, `beside` are versions that no name leads to.
    """
    cores = cpu_cores(samples)
    return documents.Status(
        version=about.version,
        address=about.address,
        metrics_address=about.metrics_address,
        uptime_s=round(time.time() - about.started_at, 1),
        in_flight=in_flight,
        hardware=hardware(samples, nvml_error),
        models=[
            _model_status(model, cores.get(model.name), model is next_out, _other_versions(model, beside))
            for model in models
        ],
    )


def hardware(samples: Sequence[Sample], nvml_error: str | None) -> documents.Hardware | None:
    """The host and its GPUs at the last sample; None while there is no sample."""
    if not samples:
        return None
    host_memory = memory()
    cpu_percent = samples[-1].host.cpu_percent
    return documents.Hardware(
        cpu_percent=None if cpu_percent is None else round(cpu_percent, 1),
        memory_available_bytes=host_memory.available_bytes,
        memory_total_bytes=host_memory.total_bytes,
        gpus=[_gpu(gpu) for gpu in samples[-1].gpus],
        nvml_error=nvml_error,
    )


def cpu_cores(samples: Sequence[Sample]) -> dict[str, float]:
    """How many cores each model's processes kept busy between the last two samples; without models that are unknown.

    Unknown is a model that is missing in one of the samples, and one whose processes were replaced in between: its CPU
    time then starts again at 0.
    """
    if len(samples) < 2:
        return {}
    before, after = samples[-2:]
    interval_s = after.t_s - before.t_s
    cores = {}
    for name, now in after.models.items():
        then = before.models.get(name)
        if then is None or then.cpu_s is None or now.cpu_s is None or now.cpu_s < then.cpu_s or interval_s <= 0:
            continue
        cores[name] = round((now.cpu_s - then.cpu_s) / interval_s, 2)
    return cores


def _model_status(
    model: Model, cores: float | None, is_next_out: bool, others: list[OtherVersion]
) -> documents.ModelStatus:
    instance = model.choose()
    groups = [ProcessGroup(item.group_id) for item in model.instances if item.group_id]
    members = [member for group in groups for member in group.members()]
    return documents.ModelStatus(
        name=model.name,
        kind=model.engine.kind,
        source=model.settings.source,
        state=model.state.value,
        detail=instance.detail,
        in_state_s=round(time.time() - instance.since, 1),
        phases_s={phase: round(duration_s, 2) for phase, duration_s in instance.phases_s.items()},
        restarts=model.restarts,
        required=model.settings.required,
        running=model.admission.running,
        waiting=model.admission.waiting,
        address=instance.address,
        socket=str(instance.socket) if instance.address is None else None,
        log_file=str(instance.log_file) if instance.address is None else None,
        group_id=instance.group_id,
        process_count=len(members) or None,
        memory_bytes=sum(member.resident_bytes for member in members) or None,
        instances=[_instance_status(item) for item in model.instances],
        target_replicas=model.target_replicas,
        paths=paths_of(model),
        serving=None if instance.card is None else instance.card.serving,
        equality=_equality(instance),
        cpu_cores=cores,
        residence=_residence(model, is_next_out),
        recent=msgspec.convert(model.recent.summary(time.monotonic()), documents.Recent),
        version=model.version,
        others=others,
    )


def _other_versions(model: Model, beside: Iterable[Model]) -> list[OtherVersion]:
    others = []
    for version in beside:
        if version.name == model.name:
            is_on_trial = model.trial is not None and model.trial.version is version
            others.append(
                OtherVersion(
                    version=version.version,
                    role="trial" if is_on_trial else "previous" if version.is_leaving else "starting",
                    state=version.state.value,
                    percent=model.trial.percent if model.trial is not None and is_on_trial else None,
                )
            )
    return others


def _instance_status(instance: Instance) -> documents.InstanceStatus:
    return documents.InstanceStatus(
        state=documents.State(instance.state.value),
        detail=instance.detail,
        in_state_s=round(time.time() - instance.since, 1),
        restarts=instance.restarts,
        running=instance.in_flight,
        address=instance.address,
        socket=str(instance.socket) if instance.address is None else None,
        log_file=str(instance.log_file) if instance.address is None else None,
        group_id=instance.group_id,
    )


def _residence(model: Model, is_next_out: bool) -> Residence:
    residence, start_s, wake_s = model.residence, model.choose().start_s, model.choose().wake_s
    is_idle = model.state in (State.READY, State.ASLEEP) and model.is_idle
    return Residence(
        load=model.settings.load,
        idle_s=round(time.monotonic() - model.idle_since_s, 1) if is_idle else None,
        load_s=None if start_s is None else round(start_s, 2),
        wake_s=None if wake_s is None else round(wake_s, 2),
        loads=residence.loads["ok"],
        failed_loads=residence.loads["failed"],
        unloads={reason: residence.unloads[reason] for reason in UNLOAD_REASONS},
        measured_bytes=residence.measured_bytes,
        next_out=is_next_out,
    )


def _equality(instance: Instance) -> documents.Equality | None:
    equality = instance.card and instance.card.equality
    return msgspec.convert(equality, documents.Equality, from_attributes=True) if equality else None


def _gpu(gpu: "GpuSample") -> documents.Gpu:
    return documents.Gpu(
        index=gpu.index,
        name=gpu.name,
        utilization_percent=gpu.utilization_percent,
        memory_used_bytes=gpu.memory_used_bytes,
        memory_total_bytes=gpu.memory_total_bytes,
        power_w=gpu.power_w,
        shared=gpu.shared,
        model=gpu.model,
        lost=gpu.lost,
    )
