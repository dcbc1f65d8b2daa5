"""How well the hardware was used, and what that costs: MFU, MBU, tokens per joule, money per million tokens.

Computed from what was measured and from the model's own configuration; None wherever a part of that is not known, as
without a GPU.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.ladder import Climb
from clients.record import RequestRecord
from servers.engines.base import weight_bytes
from servers.telemetry.peaks import cost_per_million_tokens, mbu, mfu, tokens_per_joule

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def judge(climb: Climb, model_dir: Path | None, dtype: str | None, price_per_hour: float | None) -> dict[str, Any]:
    """The figures of one rung: fractions of the GPU's peaks, tokens a joule, the price of a million output tokens."""
    records = [record for measurement in climb.measurements for record in measurement.records if not record.failed]
    spent_s = sum(measurement.end_s - measurement.begin_s for measurement in climb.measurements)
    output_tokens = sum(record.output_tokens or 0 for record in records) or None
    gpus = [gpu for window in climb.utilisation for gpu in window["gpus"]]
    energies = [gpu["energy_j"] for gpu in gpus]
    energy_j = sum(energies) if energies and None not in energies else None
    rate = output_tokens / spent_s if output_tokens else None
    return {
        "mfu": None,
        "mbu": None,
        **(_shares(records, climb.users, spent_s, model_dir, dtype, gpus) if gpus and model_dir else {}),
        "energy_j": energy_j,
        "tokens_per_joule": tokens_per_joule(output_tokens, energy_j),
        "cost_per_million_output_tokens": cost_per_million_tokens(price_per_hour, rate),
    }


def _shares(
    records: Sequence[RequestRecord],
    users: int,
    spent_s: float,
    model_dir: Path,
    dtype: str | None,
    gpus: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """MFU over the measured time and MBU of the mean decoding step, for a decoder with its configuration beside it."""
    file = model_dir / "config.json"
    config = json.loads(file.read_text()) if file.is_file() else {}
    if "num_attention_heads" not in config or "num_hidden_layers" not in config:
        return {}
    layers, heads = config["num_hidden_layers"], config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    saved = str(config.get("torch_dtype") or config.get("dtype"))
    parameters = weight_bytes(model_dir) / _BYTES.get(saved, 2)
    width = _BYTES.get(saved if dtype in (None, "auto") else str(dtype), 2)
    lengths = [(record.prompt_tokens or 0, record.output_tokens or 0) for record in records]
    # Every token attends to itself and to all before it.
    attended = sum((prompt + output) * (prompt + output + 1) / 2 for prompt, output in lengths)
    context = sum(prompt + output / 2 for prompt, output in lengths) / max(len(lengths), 1)
    steps_s = [record.tpot_s for record in records if record.tpot_s]
    kv_heads = config.get("num_key_value_heads") or heads
    devices = len({gpu["uuid"] for gpu in gpus})
    name = gpus[0]["name"]
    return {
        "mfu": mfu(
            name,
            active_parameters=parameters,
            tokens=float(sum(map(sum, lengths))),
            layers=layers,
            heads=heads,
            head_dim=head_dim,
            attention_pairs=attended,
            elapsed_s=spent_s,
            devices=devices,
        ),
        "mbu": mbu(
            name,
            weight_bytes=parameters * width,
            kv_bytes=users * context * 2 * layers * kv_heads * head_dim * width,
            step_s=sum(steps_s) / len(steps_s) if steps_s else None,
            devices=devices,
        ),
    }
