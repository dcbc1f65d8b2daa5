"""Every example of the README runs as it stands, but for the port."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, Platform, serving

README = (REPOSITORY / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
PLUGIN = next(block for block in PYTHON if "class MyAPI" in block)
SHELL = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
OF_THE_PLUGIN = [block for block in SHELL if "my_api" in block]
OF_THE_HARNESS = [block for block in SHELL if "litport bench" in block]
OF_THE_DEMO = [block for block in SHELL if block not in OF_THE_PLUGIN + OF_THE_HARNESS]
# As they stand they take a quarter of an hour.
SMALL = {
    "LITPORT_BENCH__PASSES": "1",
    "LITPORT_BENCH__RUNGS": "[fastapi]",
    "LITPORT_BENCH__PERCENTILES": "[50]",
    "LITPORT_BENCH__WORKLOAD__REQUESTS": "32",
    "LITPORT_BENCH__WORKLOAD__OUTPUT_TOKENS": "8",
    "LITPORT_BENCH__VALIDITY__MAX_DRIFT": "1",
    "LITPORT_BENCH__VALIDITY__MAX_LAG_S": "5",
}


@pytest.mark.parametrize("block", OF_THE_DEMO, ids=lambda block: " ".join(block.split()[:3]))
def test_a_shell_example_runs(platform: Platform, block: str) -> None:
    _shell(block, platform)


@pytest.mark.long
@pytest.mark.parametrize("block", OF_THE_HARNESS, ids=lambda block: " ".join(block.split()[:3]))
def test_an_example_of_the_harness_runs_when_made_small(
    platform: Platform, block: str, tmp_path: Path, model_cache: Path
) -> None:
    small = {**SMALL, "LITPORT_SERVER__CACHE_DIR": str(model_cache)}
    block = block.replace("results/", f"{tmp_path}/").replace(" --confirm", "")  # which wants the rung litport
    assert '"valid": true' in _shell(block, platform, small)


@pytest.mark.parametrize(
    "block", [block for block in PYTHON if block != PLUGIN], ids=lambda block: block.split("\n")[0]
)
def test_a_python_example_runs(platform: Platform, block: str) -> None:
    script = block.replace("http://127.0.0.1:8000", platform.url)
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip()


def test_the_plugin_of_the_readme_serves_from_a_folder_that_has_our_names_too(tmp_path: Path) -> None:
    (tmp_path / "my_api.py").write_text(PLUGIN)
    for name in ("configs", "servers"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('not ours')")
    serve, curl = OF_THE_PLUGIN
    with serving(tmp_path, serve.split()[2], "--server.cache_dir", str(tmp_path), cwd=tmp_path) as platform:
        assert _shell(curl, platform) == '{"output":"HELLO"}'


def _shell(block: str, platform: Platform, more: Mapping[str, str] | None = None) -> str:
    """Run the block with `litport` meaning this one; returns what it printed."""
    script = block.replace("http://127.0.0.1:8000", platform.url)
    script = (
        f'set -e\nlitport() {{ "{sys.executable}" -P -m litport "$@"; }}\n{script.replace("curl ", "curl -sS --fail ")}'
    )
    environ = os.environ | {"LITPORT_SERVER__PORT": platform.url.rpartition(":")[2]} | dict(more or {})
    ended = subprocess.run(
        ["bash", "-c", script],
        cwd=REPOSITORY,
        env=environ,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, f"{block}\n{ended.stdout}\n{ended.stderr}"
    assert ended.stdout.strip()
    return ended.stdout
