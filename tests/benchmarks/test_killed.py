"""However the harness ends, nothing that it started is left."""

import signal
import subprocess
import time
from pathlib import Path

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


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_outlives_the_harness(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    words = [*LITPORT, "bench", "run", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "out")]
    words += ["--server.cache_dir", str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as harness:
        assert harness.stderr is not None
        assert any("measuring" in line for line in harness.stderr)
        time.sleep(1)
        started = psutil.Process(harness.pid).children(recursive=True)
        assert len(started) >= 5  # the reaper, litport and its own, LitServe's, the generator
        harness.send_signal(number)
        harness.wait(timeout=30)
    gone, alive = psutil.wait_procs(started, timeout=15)
    assert [process.cmdline() for process in alive] == []
    assert len(gone) == len(started)
