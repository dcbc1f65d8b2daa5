"""The harness on real models and engines: `litport bench run` with the recipes of the repository, made small."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.documents import read_document
from tests.conftest import litport

pytestmark = pytest.mark.alone

# In a second or two, one hiccup of the machine is the whole of the generator's lag.
VALID = ("--bench.validity.max_drift", "1", "--bench.validity.max_lag_s", "0.5")
SMALL = ("--bench.passes", "1", "--bench.percentiles", "[50]", *VALID)
SERVED = ("fastapi", "litserve", "litport")


def bench(recipe: str, out: Path, cache: Path, *overrides: str) -> dict[str, Any]:
    """Run a recipe to its end; the result document. What it found against itself fails the test."""
    cache_dir = ("--server.cache_dir", str(cache))
    done = litport(
        "bench", "run", f"configs/recipes/{recipe}", "--out", str(out), *SMALL, *cache_dir, *overrides, timeout_s=400
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = read_document(out)
    assert json.loads(done.stdout.splitlines()[-1])["valid"] is result["valid"] is True
    return result


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory, model_cache: Path) -> tuple[dict[str, Any], Path]:
    out = tmp_path_factory.mktemp("bench") / "pictures"
    small = ("--bench.workload.requests", "32", "--bench.load.users", "4", "--bench.max_batch_size", "4")
    return bench("bench-image.yaml", out, model_cache, *small), out


@pytest.fixture(scope="module")
def language(tmp_path_factory: pytest.TempPathFactory, model_cache: Path) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("bench") / "language"
    small = ("--bench.workload.requests", "16", "--bench.workload.output_tokens", "12", "--bench.load.users", "4")
    rungs = ("--bench.rungs", "[transformers-batched, vllm-offline, vllm, litport]")
    return bench("bench-llm.yaml", out, model_cache, *small, *rungs, "--require-parity")


def by_name(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {rung["name"]: rung for rung in result["rungs"]}


def test_a_generic_models_ladder_is_climbed_whole(pictures: tuple[dict[str, Any], Path]) -> None:
    result, out = pictures
    rungs = by_name(result)
    assert list(rungs) == ["model", "model-batched", *SERVED]
    assert all(rung["figures"]["requests"] == 32 and not rung["figures"]["failed"] for rung in rungs.values())
    assert all(rung["parity"]["holds"] for rung in rungs.values())
    assert all(abs(rung["time"]["closure_error"]) < 0.02 for rung in rungs.values())
    assert {"result.json", "requests.jsonl", "report.md", "report.html"} <= {file.name for file in out.iterdir()}
    assert len((out / "requests.jsonl").read_text().splitlines()) == 5 * 32


def test_the_steps_of_litserve_are_rows_through_litport(pictures: tuple[dict[str, Any], Path]) -> None:
    rows = [row["name"] for row in by_name(pictures[0])["litport"]["time"]["rows"]]
    assert {"front door", "queue", "batch wait", "decode", "predict", "encode", "return"} <= set(rows)


def test_what_no_gpu_measured_is_null(pictures: tuple[dict[str, Any], Path]) -> None:
    if pictures[0]["machine"]["gpus"]:
        pytest.skip("this machine has a GPU")
    rung = by_name(pictures[0])["litport"]
    assert rung["utilisation"][0]["gpus"] == []
    assert rung["utilisation"][0]["nvml_error"]
    assert {rung["efficiency"][name] for name in ("mfu", "mbu", "energy_j", "tokens_per_joule")} == {None}
    assert rung["utilisation"][0]["models"]["model"]["cpu_cores"] > 0.1


@pytest.mark.long
def test_the_rows_of_vllm_and_litport_add_up(language: dict[str, Any]) -> None:
    rungs = by_name(language)
    for name in ("vllm-offline", "vllm", "litport"):
        assert abs(rungs[name]["time"]["closure_error"]) < 0.02, rungs[name]["time"]
    assert [row["name"] for row in rungs["litport"]["time"]["rows"]][:4] == [
        "client lateness",
        "network, accept, client read",
        "front door",
        "hop to the model's process",
    ]


@pytest.mark.long
def test_every_rung_generates_the_same_tokens(language: dict[str, Any]) -> None:
    for name, rung in by_name(language).items():
        assert rung["parity"]["exact_share"] == 1.0, name
        assert rung["figures"]["output_tokens"] == 12 * rung["figures"]["requests"]
    assert by_name(language)["litport"]["parity"]["logprob_distance"] < 0.001


@pytest.mark.long
def test_random_prompts_find_nothing_in_the_prefix_cache(language: dict[str, Any]) -> None:
    rungs = by_name(language)
    assert [rungs[name]["prefix_cache_hit_rate"] for name in ("vllm-offline", "vllm", "litport")] == [0, 0, 0]


@pytest.mark.long
def test_the_verdict_names_a_row_and_its_cause(language: dict[str, Any]) -> None:
    verdict = language["verdict"]
    assert verdict["row"] in {row["name"] for row in by_name(language)["litport"]["time"]["rows"]}
    assert verdict["cause"]
    # Which of the bare rungs is the faster one is the processor's to say.
    references = ("vllm-offline", "transformers-batched")
    assert any(f"{name}'s throughput" in verdict["summary"] for name in references), verdict["summary"]
