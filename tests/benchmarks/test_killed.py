"""However the harness ends, nothing that it started is left, and what it has measured is kept."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import LITPORT

RECIPE = """
models:
  echo:
    engine: litserve
    api: echo
    example: { "input": 1 }
bench:
  rungs: [litport]
  parity_prompts: 0
  workload: { requests: 100000 }
"""


@pytest.mark.parametrize(
    "number",
    [signal.SIGKILL, *(pytest.param(number, marks=pytest.mark.long) for number in (signal.SIGTERM, signal.SIGINT))],
)
def test_nothing_outlives_the_harness(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    words = [*LITPORT, "bench", "run", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "out")]
    words += ["--server.cache_dir", str(tmp_path)]
    output: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, start_new_session=True, **output) as harness:
        assert harness.stderr is not None
        assert any("measuring" in line for line in harness.stderr)
        # The reaper, litport and its own, LitServe's, the generator.
        started = wait_for_descendants(harness.pid, 5)
        if number is signal.SIGINT:
            os.killpg(harness.pid, number)  # as Ctrl-C on a terminal
        else:
            harness.send_signal(number)
        harness.wait(timeout=30)
        last = harness.stderr.read()
    gone, alive = psutil.wait_procs(started, timeout=15)
    assert [process.cmdline() for process in alive] == []
    assert len(gone) == len(started)
    if number is signal.SIGINT:
        assert (harness.returncode, last) == (128 + number, "litport: interrupted\n")


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_keeps_the_passes_that_are_over(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("100000", "400"))
    words = [*LITPORT, "bench", "run", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "out")]
    words += ["--server.cache_dir", str(tmp_path), "--bench.passes", "50"]
    output: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, **output) as harness:
        assert harness.stderr is not None
        assert any("pass 2 of 50, litport: measuring" in line for line in harness.stderr)
        harness.send_signal(number)
        told, _ = harness.communicate(timeout=60)
    assert harness.returncode == 1
    summary = json.loads(told.splitlines()[-1])
    assert (summary["valid"], "litport: passes" in summary["findings"]) == (False, True)
    document = json.loads((tmp_path / "out" / "result.json").read_text())
    messages = [finding["message"] for finding in document["findings"]]
    assert "pass 2 of 50 was given up: it was interrupted" in messages
    assert len((tmp_path / "out" / "requests.jsonl").read_text().splitlines()) == 400


def wait_for_descendants(pid: int, least: int) -> list[psutil.Process]:
    deadline_s = time.monotonic() + 10
    while len(descendants := psutil.Process(pid).children(recursive=True)) < least:
        assert time.monotonic() < deadline_s, [process.cmdline() for process in descendants]
        time.sleep(0.05)
    return descendants
