"""A platform that is loaded while the real Prometheus watches it, on a machine that seems to have two GPUs.

The GPUs are those of the stand-in for NVIDIA's library (tests/services/nvml.c): one that belongs to the language model
and has all there is to read, and one that is cut into MIG instances. Everything else is real.
"""

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import Platform, litport, serving
from tests.docker.prometheus import PROMETHEUS, Prometheus, watching
from tests.telemetry.conftest import library

__all__ = ["library"]

TARGETS = ("configs/recipes/demo.yaml",)
# The sampler asks for the energy every 2 s; in millijoules, so that five minutes of it fit a line.
GPUS = f"""count 2
0.uuid GPU-a
0.name NVIDIA H100 80GB HBM3
0.mig 0
0.utilization 37
0.memory_total 85899345920
0.memory_used 1073741824
0.power 250500
0.energy {"|".join(str(count) for count in range(1, 150))}
0.temperature 61
0.clock.1 1755
0.clock.2 2619
0.reasons 0x24
0.gpm 1
0.gpm.2 0|50
0.gpm.3 0|20
0.gpm.10 0|30
0.processes {{processes}}
1.uuid GPU-b
1.name NVIDIA H100 80GB HBM3
1.mig 1
1.memory_total 40000
1.memory_used 3000
1.mig_max 7
1.mig.0.uuid MIG-x
1.mig.0.memory_total 10000
1.mig.0.memory_used 1000
1.mig.0.processes 4194303:900
"""
QUIET = ("--bench.passes", "1", "--bench.warmup_requests", "0", "--bench.parity_prompts", "0")
SHORT = ("--bench.percentiles", "[50]", "--bench.load.users", "4", "--bench.load.time_limit_s", "15")


@dataclass(frozen=True)
class Load:
    """What the load generator says of its requests to one model."""

    kind: str
    requests: list[dict[str, Any]]

    def total(self, field: str) -> int:
        """The sum of a field of all requests, as far as it is known."""
        return sum(request[field] or 0 for request in self.requests)


@dataclass(frozen=True)
class Watched:
    """The platform after the load, who watches it, and what the load was, by model."""

    platform: Platform
    metrics_address: str
    prometheus: Prometheus
    loads: dict[str, Load]

    @property
    def language_model(self) -> str:
        """The name of the one that vLLM runs."""
        [name] = [name for name, load in self.loads.items() if load.kind == "vllm"]
        return name


@pytest.fixture(scope="module")
def watched(model_cache: Path, library: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    if PROMETHEUS is None:
        pytest.skip("NOT TESTED: dashboards and rules on a real Prometheus, as prometheus is missing")
    folder = tmp_path_factory.mktemp("watched")
    answers = folder / "gpus"
    answers.write_text(GPUS.format(processes="-"), encoding="utf-8")
    with contextlib.ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LD_LIBRARY_PATH", os.fspath(library.parent))
            patch.setenv("FAKE_NVML", os.fspath(answers))
            platform = stack.enter_context(serving(folder, *TARGETS, "--server.cache_dir", str(model_cache)))
        status = httpx.get(f"{platform.url}/status", timeout=10).json()
        _give_a_gpu(answers, status["models"])
        prometheus = stack.enter_context(watching(status["metrics_address"], folder))
        prometheus.wait_for('up{job="litport"}', 1)
        httpx.post(f"{platform.url}/predict/nobody", timeout=10)  # so that something is refused
        # The language model last, as it has the most queries: its load must not be long ago when they are made.
        models = sorted(status["models"], key=lambda model: bool(model["kind"] == "vllm"))
        loads = {model["name"]: _load(platform, model, folder) for model in models}
        yield Watched(platform, status["metrics_address"], prometheus, loads)


def _give_a_gpu(answers: Path, models: list[dict[str, Any]]) -> None:
    owner = next((model for model in models if model["kind"] == "vllm"), models[0])
    new = answers.with_suffix(".new")
    new.write_text(GPUS.format(processes=f"{owner['group_id']}:1000"), encoding="utf-8")
    new.replace(answers)


def _load(platform: Platform, model: dict[str, Any], folder: Path) -> Load:
    name, out = model["name"], folder / f"load-{model['name']}"
    many: tuple[str, ...] = ("--bench.workload.requests", "200")
    if model["kind"] == "vllm":
        path, many = "", ("--bench.workload.requests", "24", "--bench.workload.output_tokens", "16")
    elif "/v1/embeddings" in model["paths"]:
        path = "/v1/embeddings"
    else:
        path, many = f"/predict/{name}", ("--bench.workload.kind", "images", "--bench.workload.requests", "100")
    command = ("bench", "load", platform.url + path, "--model", name, "--out", str(out), *QUIET, *SHORT, *many)
    done = litport(*command, timeout_s=180)
    # A result may be invalid here, where others use the same cores: what counts is that every request is accounted for.
    assert (out / "result.json").exists(), done.stdout + done.stderr
    lines = (out / "requests.jsonl").read_text(encoding="utf-8").splitlines()
    return Load(model["kind"], [json.loads(line) for line in lines])
