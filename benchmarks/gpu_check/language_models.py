"""Part 5: vLLM on the card, where it is installed: two models with a share each, sleep, and the ladder."""

import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.gpu_check.card import Context, read_card
from benchmarks.gpu_check.check import NotRunError, Recorder
from benchmarks.gpu_check.ladder import climb, compare_rungs
from benchmarks.gpu_check.models import SMALL, make_llama
from benchmarks.gpu_check.platform import Platform, serving

_START_S = 240.0
_IDLE_S = 10.0
_SHARE = 0.25
_ARGS = {"max-model-len": 1024, "gpu-memory-utilization": _SHARE, "skip-tokenizer-init": False}
_NAMES = ("one", "two")


def run(record: Recorder, context: Context) -> None:
    """Serve and compare. Raises NotRunError without vLLM or a card."""
    if not context.on_card:
        raise NotRunError("a rehearsal: vLLM's part needs the card")
    if find_spec("vllm") is None:
        raise NotRunError("vLLM is not installed")
    context.require_card()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_llama(folder / "llama", SMALL, context.device)
        model = {"engine": "vllm", "source": str(folder / "llama"), "args": _ARGS}
        sleeper = {
            **model,
            "args": {**_ARGS, "enforce-eager": True},
            "idle_unload_s": _IDLE_S,
            "min_resident_s": 0,
            "sleep_levels": [1],
        }
        with serving(dict.fromkeys(_NAMES, sleeper), folder, _START_S) as platform:
            _check_shares(record, platform)
            _check_sleep(record, platform)
        bench = {"passes": 1, "parity_prompts": 0, "percentiles": [50], "workload": {"requests": 512}}
        load = {"users": 16, "time_limit_s": 8}
        rungs = ["transformers-batched", "vllm-offline", "vllm", "litport"]
        settings = {"models": {"model": model}, "bench": {**bench, "load": load, "rungs": rungs}}
        result = climb(settings, folder / "ladder")
        compare_rungs(record, "vLLM", result)
        for rung in result.rungs:
            record.within(f"vLLM, {rung.name}: MFU", rung.efficiency.mfu, 0.0001, 1, "")
            record.within(f"vLLM, {rung.name}: MBU", rung.efficiency.mbu, 0.001, 1, "")


def _check_shares(record: Recorder, platform: Platform) -> None:
    answers = [_complete(platform, name) for name in _NAMES]
    record.judge("two models answer on one card", answers, "[200, 200]", answers == [200, 200])
    card = read_card()
    share = None
    if card.memory_used_bytes and card.memory_total_bytes:
        share = card.memory_used_bytes / card.memory_total_bytes
    most = len(_NAMES) * _SHARE + 0.1
    record.within("their share of the card's memory together", share, _SHARE, most, "")


def _check_sleep(record: Recorder, platform: Platform) -> None:
    for name in _NAMES:  # so that both are awake
        _complete(platform, name)
    before_bytes = read_card().memory_used_bytes
    until_s = time.monotonic() + 3 * _IDLE_S
    while set(platform.states().values()) != {"asleep"} and time.monotonic() < until_s:
        time.sleep(0.5)
    states = platform.states()
    record.judge("idle models sleep", states, "asleep", set(states.values()) == {"asleep"})
    asleep_bytes = read_card().memory_used_bytes
    difference_gib: Any = None
    if before_bytes is not None and asleep_bytes is not None:
        difference_gib = (before_bytes - asleep_bytes) / 1024**3
    record.within("memory that models that sleep give back", difference_gib, 0.5, 1000, "GiB")
    answers = [_complete(platform, name) for name in _NAMES]
    record.judge("a request wakes them", answers, "[200, 200]", answers == [200, 200])
    record.within("the slower waking", platform.longest_wake_s(), 0, _START_S, "s")


def _complete(platform: Platform, name: str) -> int:
    body = {"model": name, "prompt": [1, 2, 3, 4], "max_tokens": 8, "ignore_eos": True}
    return platform.http.post("/v1/completions", json=body).status_code
