"""How well the hardware was used, and what that costs: MFU, MBU, tokens per joule, money per million tokens.

Computed from the measurements, from the GPUs that the rung's processes are on, and from the model's own configuration;
None wherever a part of that is not known, as without a GPU, or for somebody else's server.
"""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from benchmarks.analysis.hardware import RUNG, GpuWindow
from benchmarks.analysis.measurement import RungResult
from clients.record import RequestRecord
from servers.engines.vllm.decoder import Decoder
from servers.telemetry.peaks import cost_per_million_tokens, mbu, mfu, tokens_per_joule


class Efficiency(msgspec.Struct, frozen=True):
    """Fractions of the GPU's peaks (MFU and MBU), energy in joules, and what a million output tokens cost."""

    mfu: float | None
    mbu: float | None
    energy_j: float | None
    tokens_per_joule: float | None
    cost_per_million_output_tokens: float | None


def assess(result: RungResult, model_dir: Path | None, dtype: str | None, price_per_hour: float | None) -> Efficiency:
    """The figures of one rung; `dtype` is the precision that the model computes in, None for that of its files."""
    records = [record for measurement in result.measurements for record in measurement.records if not record.failed]
    spent_s = sum(measurement.duration_s for measurement in result.measurements)
    output_tokens = sum(record.output_tokens or 0 for record in records) or None
    gpus = _gpus(result)
    energies = [gpu.energy_j for gpu in gpus if gpu.energy_j is not None]
    energy_j = sum(energies) if energies and len(energies) == len(gpus) else None
    rate = output_tokens / spent_s if output_tokens else None
    shares: tuple[float | None, float | None] = (None, None)
    if gpus and model_dir and (model := Decoder.read(model_dir, dtype)):
        shares = _shares(records, result.under_way, spent_s, model, gpus)
    return Efficiency(
        *shares,
        energy_j=energy_j,
        tokens_per_joule=tokens_per_joule(output_tokens, energy_j),
        cost_per_million_output_tokens=cost_per_million_tokens(price_per_hour, rate),
    )


def _gpus(result: RungResult) -> list[GpuWindow]:
    """Those that the rung's processes are on, in every pass.

    In a container the driver may tell the host's process ids, which are nobody's; the only GPU, at work, is the rung's
    there, if its processes are on this machine.
    """
    indices = {
        gpu.index
        for samples in result.series
        for sample in samples
        for gpu in sample.gpus
        if any(process.model == RUNG for process in gpu.processes or ())
    }
    gpus = [gpu for window in result.utilisation for gpu in window.gpus]
    is_here = all(window.rung for window in result.utilisation)
    is_only = len({gpu.index for gpu in gpus}) == 1
    if not indices and is_here and is_only and all(gpu.utilization_percent for gpu in gpus):
        return gpus
    return [gpu for gpu in gpus if gpu.index in indices]


def _shares(
    records: Sequence[RequestRecord], under_way: int, spent_s: float, model: Decoder, gpus: Sequence[GpuWindow]
) -> tuple[float | None, float | None]:
    """MFU over the measured time and MBU of the mean decoding step, which is for `under_way` requests."""
    lengths = [(record.prompt_tokens or 0, record.output_tokens or 0) for record in records]
    # Every token attends to itself and to all before it.
    pairs = sum((prompt + output) * (prompt + output + 1) / 2 for prompt, output in lengths)
    context = sum(prompt + output / 2 for prompt, output in lengths) / max(len(lengths), 1)
    steps_s = [record.tpot_s for record in records if record.tpot_s]
    devices = len({gpu.uuid for gpu in gpus})
    name = gpus[0].name
    flops_share = mfu(
        name,
        active_parameters=model.parameters,
        tokens=float(sum(map(sum, lengths))),
        layers=model.layers,
        heads=model.heads,
        head_dim=model.head_dim,
        attention_pairs=pairs,
        elapsed_s=spent_s,
        devices=devices,
    )
    bandwidth_share = mbu(
        name,
        weight_bytes=model.parameters * model.width_bytes,
        kv_bytes=under_way * context * model.kv_bytes_per_token,
        step_s=sum(steps_s) / len(steps_s) if steps_s else None,
        devices=devices,
    )
    return flops_share, bandwidth_share
