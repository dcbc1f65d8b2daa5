"""The shared platform, loaded while the real Prometheus watches; only its GPUs are stand-ins (services/gpus.py)."""

import concurrent.futures
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Platform, litport
from tests.docker.prometheus import PROMETHEUS, Prometheus, watching

LOADED = ("all-minilm-l6-v2", "efficientnet-lite0", "smollm2-135m-instruct")
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
    """The platform after the load, who watches it, when the load began (Unix time), and what it was, by model."""

    metrics_address: str
    prometheus: Prometheus
    begin_s: float
    loads: dict[str, Load]

    def grew_by(self, total: str, expected: int) -> None:
        """Hold, as soon as it does, that this expression, which has no labels, grew by so much through the load."""
        self.prometheus.wait_for(self.growth(total), expected)

    def growth(self, total: str) -> str:
        """By how much this expression, which has no labels, grew through the load, as another one.

        Before the load the least of some seconds counts: a canary may be counted by the model and not yet by us.
        """
        before = f"min_over_time(({total})[4s:1s] @ {self.begin_s:.3f})"
        return f"(({total}) - ({before} or vector(0)))"

    @property
    def language_model(self) -> str:
        """The name of the one that vLLM runs."""
        [name] = [name for name, load in self.loads.items() if load.kind == "vllm"]
        return name


@pytest.fixture(scope="module")
def watched(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    if PROMETHEUS is None:
        pytest.skip("NOT TESTED: dashboards and rules on a real Prometheus, as prometheus is missing")
    folder = tmp_path_factory.mktemp("watched")
    status = platform.http.get("/status", timeout=10).json()
    with watching(status["metrics_address"], folder) as prometheus:
        prometheus.wait_for('up{job="litport"}', 1)
        platform.http.post("/predict/nobody", timeout=10)  # so that something is refused
        time.sleep(4)
        begin_s = time.time()
        models = {model["name"]: model for model in status["models"]}
        with concurrent.futures.ThreadPoolExecutor(len(LOADED)) as pool:
            loads = dict(zip(LOADED, pool.map(lambda name: _load(platform, models[name], folder), LOADED), strict=True))
        yield Watched(status["metrics_address"], prometheus, begin_s, loads)


def _load(platform: Platform, model: dict[str, Any], folder: Path) -> Load:
    name, out = model["name"], folder / f"load-{model['name']}"
    many: tuple[str, ...] = ("--bench.workload.requests", "200")
    if model["kind"] == "vllm":
        path, many = "", ("--bench.workload.requests", "24", "--bench.workload.output_tokens", "16")
    elif "/v1/embeddings" in model["paths"]:
        path, many = "/v1/embeddings", (*many, "--body", '{"input": "The cat sat on the mat."}')
    else:
        path, many = f"/predict/{name}", ("--bench.workload.kind", "images", "--bench.workload.requests", "100")
    command = ("bench", "load", platform.url + path, "--model", name, "--out", str(out), *QUIET, *SHORT, *many)
    done = litport(*command, timeout_s=180)
    # A result may be invalid here, where others use the same cores: what counts is that every request is accounted for.
    assert (out / "result.json").exists(), done.stdout + done.stderr
    lines = (out / "requests.jsonl").read_text(encoding="utf-8").splitlines()
    return Load(model["kind"], [json.loads(line) for line in lines])
