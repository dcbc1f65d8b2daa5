"""A result made by hand for the tests of the report: two numbers of users, a GPU, gaps, a finding, hostile words."""

from typing import Any

import msgspec
import pytest

from benchmarks.result import Result

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def result() -> Result:
    """What no run would give in one: everything that a report has to cope with."""
    return msgspec.convert(_document(), Result)


def _document() -> dict[str, Any]:
    return {
        "schema_version": 1,
        "started_at": "2026-01-02T03:04:05Z",
        "finished_at": "2026-01-02T03:14:05Z",
        "command": ["litport", "bench", "run", f"{HOSTILE}.yaml"],
        "model": HOSTILE,
        "settings": {"model": {"source": f"</script>{HOSTILE}"}, "bench": {"passes": 2, "path": None}},
        "workload_digest": "d1ce57",
        "versions": {"python": "3.11.7", "vllm": "0.32.0"},
        "machine": {
            "system": "Linux 6.1",
            "processor": None,
            "cores": 16,
            "memory_bytes": 128 * 2**30,
            "gpus": [{"name": "NVIDIA H100 80GB HBM3", "memory_mib": 81559, "driver": "580.1"}],
        },
        "git_commit": None,
        "requests_file": "requests.jsonl",
        "valid": False,
        "findings": [
            {"rule": "steady_state", "rung": "litport", "message": "throughput differs by 41%: <b>no</b> *way*"}
        ],
        "rungs": [
            _bare(1, 20.0),
            _bare(8, 90.0),
            _nothing("https://somebody.example/<img src=x onerror=alert(1)>", 8),
            _served("vllm", 1, 22.0, front_door=False),
            _served("vllm", 8, 160.0, front_door=False),
            _served("litport", 1, 21.0, front_door=True),
            _served("litport", 8, 152.0, front_door=True),
        ],
        "verdict": {
            "row": "decode",
            "share": 0.8,
            "serving_row": "scheduler queue",
            "serving_share": 0.1,
            "cause": "the model itself: 80% of the time it generates",
            "reason": "events are written one by one",
            "advice": {"setting": "args.max-num-seqs", "value": 8},
            "summary": "Litport reaches 1.69 of transformers' throughput; 80% of the latency is decode",
        },
        "confirmed": {
            "setting": "args.max-num-seqs",
            "value": 8,
            "throughput_ratio": 1.25,
            "throughput_ratios": [1.2, 1.3],
            "e2e_ratio": 0.8,
            "e2e_ratios": [0.79, 0.81],
            "helped": True,
        },
    }


def _bare(users: int, tokens_per_s: float) -> dict[str, Any]:
    rows = {"waiting for the model": 0.001, "prefill": 0.1, "decode": 0.8, "loop": -0.001}
    return {
        **_nothing("transformers", users),
        "batch_size": 4 if users > 1 else None,
        "figures": _figures(tokens_per_s, 0.9),
        "time": _time(rows, 0.9, 0.00111),
        "utilisation": [_window(None, gpu=False)],
        "series": [[_sample(0.5, 1.0, gpu=False), _sample(1.0, 1.5, gpu=False)]],
    }


def _served(name: str, users: int, tokens_per_s: float, *, front_door: bool) -> dict[str, Any]:
    door = {"front door": 0.002, "hop to the model's process": 0.001} if front_door else {}
    rows = {"network, accept, client read": 0.01, **door, "scheduler queue": 0.05, "prefill": 0.04, "decode": 0.4}
    e2e_s = sum(rows.values())
    closure = 0.0 if front_door else None
    return {
        **_nothing(name, users),
        "start_s": [30.0, 34.0],
        "figures": _figures(tokens_per_s, e2e_s),
        "time": _time(rows, e2e_s, closure, "" if front_door else "the server counted 9 requests, the client 8"),
        "prefix_cache_hit_rate": 0.5 if front_door else None,
        "generator": {
            "ceiling_requests_per_s": 900.0,
            "share_of_ceiling": 0.02,
            "cpu_share": 0.11,
            "lag_p99_s": 0.002,
            "offered_per_s": 5.0,
            "achieved_per_s": 4.98,
        },
        "utilisation": [_window(1.5, gpu=True), _window(2.5, gpu=True)],
        "efficiency": {
            "mfu": 0.123,
            "mbu": 0.456,
            "energy_j": 5000.0,
            "tokens_per_joule": 2.5,
            "cost_per_million_output_tokens": None,
        },
        "series": [
            [_sample(0.5, 1.0, gpu=True), _sample(1.0, 2.0, gpu=True), _sample(1.5, 1.9, gpu=True)],
            [_sample(0.5, 1.0, gpu=True), _sample(1.0, 1.75, gpu=True)],
        ],
        "parity": {
            "prompts": 4,
            "exact_share": 0.75 if front_door else 1.0,
            "first_divergence": 7 if front_door else None,
            "logprob_distance": 0.0012,
            "least_cosine": None,
            "holds": not front_door,
        },
    }


def _nothing(name: str, users: int) -> dict[str, Any]:
    figures = dict.fromkeys(
        ("request_throughput_per_s", "output_throughput_per_s", "goodput_per_s", "ttft_s", "tpot_s", "itl_s", "e2e_s")
    )
    counts = {"requests": 8, "failed": 8, "errors": {"HTTP 500": 7, HOSTILE: 1}, "duration_s": 2.0}
    window: dict[str, Any] = {**_TIMES, "models": {}, "host": _HOST, "gpus": [], "nvml_error": None}
    efficiency = dict.fromkeys(("mfu", "mbu", "energy_j", "tokens_per_joule", "cost_per_million_output_tokens"))
    return {
        "name": name,
        "users": users,
        "batch_size": None,
        "start_s": [],
        "figures": {**figures, **counts, "prompt_tokens": None, "output_tokens": None},
        "time": None,
        "prefix_cache_hit_rate": None,
        "generator": None,
        "utilisation": [window],
        "efficiency": efficiency,
        "series": [[]],
        "parity": None,
        "knee": False,
    }


def _figures(tokens_per_s: float, e2e_s: float) -> dict[str, Any]:
    return {
        "requests": 128,
        "failed": 0,
        "errors": {},
        "duration_s": 60.5,
        "request_throughput_per_s": _rate(tokens_per_s / 32),
        "output_throughput_per_s": _rate(tokens_per_s),
        "goodput_per_s": _rate(tokens_per_s / 40),
        "ttft_s": _distribution(e2e_s / 8),
        "tpot_s": _distribution(e2e_s / 40),
        "itl_s": None,
        "e2e_s": _distribution(e2e_s),
        "prompt_tokens": 8192,
        "output_tokens": 4096,
    }


def _rate(value: float) -> dict[str, Any]:
    return {"value": value, "ci": [value * 0.95, value * 1.05], "passes": [value * 0.98, value * 1.02]}


def _distribution(value: float) -> dict[str, Any]:
    shares = {"mean": 1.0, "p50": 0.95, "p90": 1.4}
    figures: dict[str, Any] = {"n": 128, "p99": None, "p99_ci": None}
    for name, share in shares.items():
        figures |= {name: value * share, f"{name}_ci": [value * share * 0.97, value * share * 1.04]}
    return figures


def _time(rows: dict[str, float], e2e_s: float, closure_error: float | None, note: str = "") -> dict[str, Any]:
    listed = [{"name": name, "seconds": seconds} for name, seconds in rows.items()]
    return {"rows": listed, "e2e_s": e2e_s, "closure_error": closure_error, "note": note}


_TIMES = {"start_s": 10.0, "end_s": 70.5, "covered_s": 60.5, "samples": 120}
_HOST = {"cpu_percent": None, "steal_percent": None, "throttled_s": None, "throttled_periods": None}


def _window(cores: float | None, *, gpu: bool) -> dict[str, Any]:
    model = {
        "cpu_cores": cores,
        "max_resident_bytes": 3 * 2**30,
        "max_processes": 4,
        "voluntary_switches_per_s": 120.0,
        "involuntary_switches_per_s": None,
        "max_gpu_memory_bytes": None,
    }
    card = {
        "index": 0,
        "uuid": "GPU-1",
        "name": "NVIDIA H100 80GB HBM3",
        "lost": False,
        "mig": False,
        "shared": False,
        "model": "model",
        "utilization_percent": 88.0,
        "power_w": 512.5,
        "energy_j": 2500.0,
        "max_memory_used_bytes": 70 * 2**30,
        "memory_total_bytes": 80 * 2**30,
        "max_temperature_c": 61,
        "sm_clock_mhz": 1980.0,
        "mem_clock_mhz": 2619.0,
        "throttle_reasons": ["sw_power_cap"],
        "sm_util_percent": None,
        "sm_occupancy_percent": None,
        "dram_bandwidth_percent": None,
        "mig_instances": [],
    }
    host = {**_HOST, "cpu_percent": 40.0, "throttled_s": 0.0}
    return {**_TIMES, "models": {"model": model}, "host": host, "gpus": [card] if gpu else [], "nvml_error": None}


def _sample(t_s: float, cpu_s: float, *, gpu: bool) -> dict[str, Any]:
    card = {
        "index": 0,
        "name": "NVIDIA H100 80GB HBM3",
        "utilization_percent": 80 + round(t_s * 10),
        "sm_util_percent": None,
        "power_w": 500.0 + t_s,
        "memory_used_bytes": 70 * 2**30,
    }
    switches = {"voluntary_switches": None, "involuntary_switches": None}
    return {
        "t_s": t_s,
        "models": {"model": {"processes": 4, "cpu_s": cpu_s, "resident_bytes": 3 * 2**30, **switches}},
        "host": {"cpu_percent": 40.0, "steal_percent": 0.0, "nr_throttled": 0, "throttled_usec": 0},
        "gpus": [card] if gpu else [],
    }
