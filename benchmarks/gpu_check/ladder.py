"""Part 3: what serving costs on the card: the ladder of an image classifier, and of a language model in LitServe.

The language model has random weights and answers the same request again and again, so its tokens are known beforehand:
MFU and MBU follow from the rate of requests alone.
"""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import run as bench
from benchmarks.analysis.summary import RungSummary
from benchmarks.gpu_check.card import Context, read_card
from benchmarks.gpu_check.check import Recorder
from benchmarks.gpu_check.models import LARGE, TINY, DecoderSize, make_llama
from benchmarks.result import Result
from configs.loading import load
from servers.telemetry.peaks import mbu, mfu

_PROMPT_TOKENS = 64
_OUTPUT_TOKENS = 32
_CLOSURE = 0.02
_AGAINST_LITSERVE = 0.97


def run(record: Recorder, context: Context) -> None:
    """Climb both ladders. Raises NotRunError without a card that torch can use."""
    context.require_card()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _check_pictures(record, context, folder / "pictures")
        _check_language_model(record, context, folder)


def climb(settings: Mapping[str, Any], folder: Path) -> Result:
    """The result of the ladder of the only model in these settings."""
    folder.mkdir()
    recipe = folder / "recipe.yaml"
    recipe.write_text(json.dumps(settings))  # YAML reads JSON
    return bench.run(bench.Plan(load([recipe]).settings, "model", ["gpu-check"]), folder, print)


def compare_rungs(record: Recorder, what: str, result: Result) -> None:
    """The throughput of each rung, its energy, whether its rows add up, and the verdict."""
    for rung in result.rungs:
        rate = rung.figures.request_throughput_per_s
        value = None if rate is None else round(rate.value, 2)
        record.judge(
            f"{what}, {rung.name}: requests/s", value, "no failures", value is not None and not rung.figures.failed
        )
        if rung.time is not None:
            error = rung.time.closure_error
            record.within(
                f"{what}, {rung.name}: where the time goes adds up to", error, -_CLOSURE, _CLOSURE, "", rung.time.note
            )
        gpus = [gpu for window in rung.utilisation for gpu in window.gpus]
        record.within(f"{what}, {rung.name}: duty cycle", _mean([gpu.utilization_percent for gpu in gpus]), 0, 100, "%")
        record.within(f"{what}, {rung.name}: SM activity", _mean([gpu.sm_util_percent for gpu in gpus]), 0, 100, "%")
    verdict = result.verdict.summary if result.verdict else None
    record.judge(f"{what}: verdict", verdict, "a sentence", bool(verdict))


def _check_pictures(record: Recorder, context: Context, folder: Path) -> None:
    users = 64 if context.on_card else 8
    model = {
        **_place(context),
        "api": "image_classification",
        "source": context.picture_model,
        "workers_per_device": 2,
        "max_batch_size": 32 if context.on_card else 4,
        "batch_timeout_s": 0.005,
    }
    arrivals = {"users": users, "time_limit_s": 5 if context.on_card else 1.5}
    workload = {"requests": 8192 if context.on_card else 64}
    largest = {"max_batch_size": 64 if context.on_card else 8}
    bench_settings = {
        **_bench(context),
        **largest,
        "passes": 2 if context.on_card else 1,
        "workload": workload,
        "load": arrivals,
    }
    result = climb({"models": {"model": model}, "bench": bench_settings}, folder)
    compare_rungs(record, "pictures", result)
    rates = {rung.name: _rate(rung) or 0.0 for rung in result.rungs}
    ratio = rates["litport"] / rates["litserve"] if rates["litserve"] else None
    record.within(f"pictures, {users} users: Litport over bare LitServe", ratio, _AGAINST_LITSERVE, 10, "")
    bare = next(rung for rung in result.rungs if rung.name == "model-batched")
    record.within("pictures: best batch size of the bare model", bare.batch_size, 1, 1024, "")


def _check_language_model(record: Recorder, context: Context, folder: Path) -> None:
    size = LARGE if context.on_card else TINY
    parameters = make_llama(folder / "llama", size, context.device)
    users = 16 if context.on_card else 2
    model = {
        **_place(context),
        "api": "causal_lm",
        "source": str(folder / "llama"),
        "max_batch_size": users,
        "batch_timeout_s": 0.01,
        "example": {
            "prompt_token_ids": list(range(1, _PROMPT_TOKENS + 1)),
            "max_tokens": _OUTPUT_TOKENS,
            "ignore_eos": True,
        },
    }
    arrivals = {"users": users, "time_limit_s": 6 if context.on_card else 1.5}
    batches = {"passes": 1, "max_batch_size": users}
    bench_settings = {**_bench(context), **batches, "workload": {"requests": 1024}, "load": arrivals}
    result = climb({"models": {"model": model}, "bench": bench_settings}, folder / "ladder")
    what = f"language model of {parameters / 1e9:.2g} billion parameters"
    compare_rungs(record, what, result)
    for rung in result.rungs:
        _compare_efficiency(record, f"{what}, {rung.name}", rung, size, parameters, context)


def _compare_efficiency(
    record: Recorder, what: str, rung: RungSummary, size: DecoderSize, parameters: int, context: Context
) -> None:
    """MFU of prompt and output together; MBU of decoding, as if all the time were decoding, so from below."""
    rate = _rate(rung)
    if not context.on_card or not rate:
        record.skip(f"{what}: MFU, MBU, joules a token", "a rehearsal" if rate else "nothing was answered")
        return
    name = read_card().name
    batch = {"model": 1, "fastapi": 1}.get(rung.name, rung.batch_size or rung.users or 1)
    tokens = _PROMPT_TOKENS + _OUTPUT_TOKENS
    model_flops = mfu(
        name,
        active_parameters=parameters,
        tokens=rate * tokens,
        layers=size.layers,
        heads=size.heads,
        head_dim=size.head_dim,
        attention_pairs=rate * tokens * (tokens + 1) / 2,
        elapsed_s=1.0,
    )
    kv_bytes = 2 * 2 * size.layers * size.kv_heads * size.head_dim * (_PROMPT_TOKENS + _OUTPUT_TOKENS / 2)
    step_s = batch / (rate * _OUTPUT_TOKENS)
    bandwidth = mbu(name, weight_bytes=2 * parameters, kv_bytes=batch * kv_bytes, step_s=step_s)
    record.within(f"{what}: MFU", model_flops, 0.0001, 1, "", f"no peak is known of {name}")
    record.within(f"{what}: MBU", bandwidth, 0.001, 1, "", f"no peak is known of {name}")
    energy_j, requests = rung.efficiency.energy_j, rung.figures.requests - rung.figures.failed
    joules = energy_j / (requests * _OUTPUT_TOKENS) if energy_j and requests else None
    record.within(f"{what}: joules an output token", joules, 0.001, 1000, "J")


def _bench(context: Context) -> dict[str, Any]:
    """What both ladders have in common; a rehearsal leaves rungs out that are measured as the others are."""
    rungs = [] if context.on_card else ["model-batched", "litserve", "litport"]
    return {"rungs": rungs, "warmup_requests": 8, "parity_prompts": 0, "percentiles": [50], "sample_interval_s": 0.2}


def _place(context: Context) -> dict[str, Any]:
    return {"engine": "litserve", "accelerator": context.device, "devices": 1}


def _rate(rung: RungSummary) -> float | None:
    rate = rung.figures.request_throughput_per_s
    return None if rate is None else rate.value


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
