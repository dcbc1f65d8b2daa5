"""How the vLLM models of a platform share the memory of GPUs: each gets its part before anything starts.

vLLM takes `gpu-memory-utilization` of a GPU, whatever its model needs, and does not start where less is free. So a
model that has a GPU to itself gets vLLM's own default; several get parts of it, by their weights and by what a sequence
of full length takes in the KV cache: each then holds the same number of such sequences. Not run on a GPU.
"""

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from configs.settings import LitportSettings, VllmModel
from configs.shape import TreePath
from servers.engines.base import weight_bytes
from servers.engines.vllm import parallel
from servers.engines.vllm.decoder import Decoder
from servers.store import Store
from servers.telemetry import machine

_GIB = 1024**3
# CacheConfig.gpu_memory_utilization of vLLM 0.32; what it leaves is for the driver and for other programs.
USABLE = 0.92
# CUDA's context and libraries, activations of a prefill, CUDA graphs. An estimate that was not measured.
_OVERHEAD_BYTES = 3 * _GIB
# CUDA's context, graphs and buffers of a process that sleeps. An estimate that was not measured.
_ASLEEP_BYTES = 1.5 * _GIB
_ASLEEP_SHARE = 0.03  # of a GPU of unknown size
_UTILIZATION = "gpu-memory-utilization"
_SIZE_OPTIONS = {_UTILIZATION, "kv-cache-memory-bytes", "num-gpu-blocks-override"}
# With these the weights take less of the GPU than their files say.
_SHRINKING = {"quantization", "cpu-offload-gb"}

Key = tuple[str, int]
"""A model and the number of its replica."""


@dataclass(frozen=True)
class Tenant:
    """A replica of a model on its GPUs; the bytes are those on each of them, None where its files are not here yet.

    `fixed_bytes` are weights and overhead, `sequence_bytes` is the KV cache of a sequence of full length, and
    `utilization` what the settings give it; 0 where they bound its KV cache in another way.
    """

    key: Key
    gpus: tuple[str, ...]
    on_demand: bool
    utilization: float | None
    fixed_bytes: float | None
    sequence_bytes: float | None


@dataclass(frozen=True)
class Division:
    """The part of its GPUs that each replica gets, None for vLLM's default; and why some do not fit, a line each."""

    shares: Mapping[Key, float | None]
    problems: Sequence[tuple[str, str]]


@cache
def gpus() -> Sequence[machine.Gpu]:
    """The GPUs of this machine, looked for once."""
    return machine.detect().gpus


def divide(models: Mapping[str, VllmModel], cache_dir: Path, cards: Sequence[machine.Gpu]) -> Division:
    """Divide the GPUs among these models.

    Of those that are loaded on demand, the largest one has room beside those that are loaded at the start; they make
    room for each other.
    """
    tenants = [tenant for name, model in models.items() for tenant in _tenants(name, model, cache_dir)]
    groups: defaultdict[str, list[Tenant]] = defaultdict(list)
    for tenant in tenants:
        for gpu in tenant.gpus:
            groups[gpu].append(tenant)
    shares: dict[Key, float | None] = {tenant.key: tenant.utilization for tenant in tenants}
    problems: dict[str, str] = {}
    for gpu, group in groups.items():
        total_bytes = cards[int(gpu)].memory_mib * 1024**2 if gpu.isdigit() and int(gpu) < len(cards) else None
        parts, problem = _divide_one(gpu, group, total_bytes)
        for key, part in parts.items():
            shares[key] = min(part, shares[key] or 1.0)
        if problem:
            problems.setdefault(group[-1].key[0], problem)
    return Division(shares, [*problems.items()])


def share(settings: LitportSettings, name: str, number: int) -> float | None:
    """The part of its GPUs that a replica gets, None for vLLM's default.

    The division is kept for the settings that came last, since each replica asks; so all of them go by the same one,
    also where a model's files come meanwhile.
    """
    latest = _latest[-1] if _latest else None
    if latest is None or latest[0] is not settings:
        models = {
            key: model for key, model in settings.models.items() if isinstance(model, VllmModel) and not model.instances
        }
        latest = settings, divide(models, settings.server.cache_dir, gpus())
        _latest[:] = [latest]
    return latest[1].shares.get((name, number))


_latest: list[tuple[LitportSettings, Division]] = []


def problems(models: Mapping[str, VllmModel], cache_dir: Path, origins: Mapping[TreePath, str]) -> Sequence[str]:
    """A line for each GPU whose models do not fit together."""
    lines = []
    for name, problem in divide(models, cache_dir, gpus()).problems:
        path = ("models", name, "args", _UTILIZATION)
        source = f" (from {origins[path]})" if path in origins else ""
        lines.append(f"{'.'.join(path)}: {problem}{source}")
    return lines


def visible(settings: VllmModel, number: int) -> tuple[str, ...]:
    """The GPUs that a replica of the model is on, as CUDA names them."""
    world = parallel.size(settings.args, parallel.SPLIT + parallel.COPIES)
    if settings.devices is not None:
        return tuple(map(str, settings.devices[number]))[:world]
    names = (os.environ | settings.env).get("CUDA_VISIBLE_DEVICES")
    return tuple(names.replace(" ", "").split(","))[:world] if names else tuple(map(str, range(world)))


def share_asleep(gpu: str) -> float:
    """The part of a GPU that a server keeps there while it sleeps."""
    cards = gpus()
    is_known = gpu.isdigit() and int(gpu) < len(cards)
    return _ASLEEP_BYTES / (cards[int(gpu)].memory_mib * 1024**2) if is_known else _ASLEEP_SHARE


def _number(value: object, default: float | None) -> float | None:
    """An option's value as a number; the default where it is not set."""
    try:
        return default if value is None else float(str(value))
    except ValueError:
        return default  # vLLM refuses it


def _tenants(name: str, settings: VllmModel, cache_dir: Path) -> Iterator[Tenant]:
    folder = Store(cache_dir).find(settings.source)
    limit = settings.args.get("max-model-len")
    decoder = Decoder.of(settings, folder)
    length = limit if isinstance(limit, int) else decoder.context_tokens if decoder else None
    is_open = not _SIZE_OPTIONS & settings.args.keys()
    parts = parallel.size(settings.args, parallel.SPLIT)
    for number in range(settings.replica_count):
        is_known = not _SHRINKING & settings.args.keys() and decoder is not None and length is not None
        yield Tenant(
            key=(name, number),
            gpus=visible(settings, number),
            on_demand=settings.load == "on_demand",
            utilization=_number(settings.args.get(_UTILIZATION), None if is_open else 0.0),
            fixed_bytes=weight_bytes(folder) / parts + _OVERHEAD_BYTES if is_known else None,
            sequence_bytes=length * decoder.kv_bytes_per_token / parts if is_known and decoder and length else None,
        )


def _divide_one(gpu: str, tenants: Sequence[Tenant], total_bytes: int | None) -> tuple[dict[Key, float], str]:
    """The parts of one GPU for those that have none in the settings, and why they do not fit, or ""."""
    residents = [tenant for tenant in tenants if not tenant.on_demand]
    guests = [tenant for tenant in tenants if tenant.on_demand]
    terms = [f"{_label(tenant)} {tenant.utilization:g}" for tenant in residents if tenant.utilization]
    fixed_share = sum(tenant.utilization or 0.0 for tenant in residents)
    if fixed_share > 1.0 + 1e-9:
        return {}, f"on GPU {gpu} the parts that are set are {' + '.join(terms)} = {fixed_share:g}, more than 1"
    applicants = [tenant for tenant in tenants if tenant.utilization is None]
    if total_bytes is not None and (large := [item for item in applicants if (item.fixed_bytes or 0) > total_bytes]):
        return {}, _sum(gpu, large, [], USABLE * total_bytes, total_bytes)
    if not applicants or len(tenants) == 1:
        return {}, ""
    free_share = USABLE - fixed_share
    permanent = [tenant for tenant in applicants if not tenant.on_demand]
    count = len(permanent) + bool([tenant for tenant in guests if tenant.utilization is None])
    sizes = [(tenant.fixed_bytes, tenant.sequence_bytes) for tenant in applicants]
    if total_bytes is None or any(None in pair for pair in sizes):
        if free_share < 0.05 * count:
            return {}, f"on GPU {gpu} {' + '.join(terms)} are set, which leaves {free_share:.2f} for {count} more"
        return {tenant.key: _floor(free_share / count) for tenant in applicants}, ""
    fixed_bytes = sum(tenant.fixed_bytes or 0 for tenant in permanent) + _most(guests, "fixed_bytes")
    full_bytes = sum(tenant.sequence_bytes or 0 for tenant in permanent) + _most(guests, "sequence_bytes")
    sequences = (free_share * total_bytes - fixed_bytes) / full_bytes
    if sequences < 1:
        return {}, _sum(gpu, applicants, terms, free_share * total_bytes, total_bytes)
    return {
        tenant.key: _floor(((tenant.fixed_bytes or 0) + sequences * (tenant.sequence_bytes or 0)) / total_bytes)
        for tenant in applicants
    }, ""


def _most(tenants: Sequence[Tenant], field: str) -> float:
    return max((getattr(tenant, field) or 0.0 for tenant in tenants if tenant.utilization is None), default=0.0)


def _sum(gpu: str, applicants: Sequence[Tenant], terms: Sequence[str], free_bytes: float, total_bytes: int) -> str:
    """Why the models do not fit, with all terms of the sum."""
    needs = [
        f"{_label(tenant)} {_gib(tenant.fixed_bytes)} + {_gib(tenant.sequence_bytes)} for a sequence of full length"
        for tenant in applicants
    ]
    deduction = f" less {' + '.join(terms)}, which are set," if terms else ""
    return (
        f"GPU {gpu} has {_gib(total_bytes)}, of which {USABLE:g}{deduction} is {_gib(free_bytes)}; these need more: "
        f"{'; '.join(needs)} (weights, 3 GiB for each process, KV cache); give some of them `devices` of their own, a "
        "smaller max-model-len, `load: on_demand`, or parts of the GPU by this option"
    )


def _label(tenant: Tenant) -> str:
    name, number = tenant.key
    return f"{name} (replica {number + 1})" if number else name


def _gib(size_bytes: float | None) -> str:
    return f"{(size_bytes or 0) / _GIB:.1f} GiB"


def _floor(share: float) -> float:
    """Three digits, which is a thousandth of a GPU, rounded down: rounded up, the parts may be more than the whole."""
    return int(share * 1000) / 1000
