"""`litport bench load` against a server with known faults: a run that counts ends with 0, one that does not says why.

The rule on the CPU quota needs a control group that a test may make; elsewhere that one test is skipped, and
test_validity.py has the rule's known answers.
"""

import contextlib
import functools
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import commands
from configs.errors import UserError
from configs.loading import LoadedSettings
from configs.settings import LitportSettings
from litport import main
from tests.benchmarks.documents import read_document
from tests.benchmarks.layers import Layered
from tests.conftest import LITPORT, litport

CGROUPS = Path("/sys/fs/cgroup")
pytestmark = pytest.mark.alone
long = functools.partial(pytest.param, marks=pytest.mark.long)

GOOD: dict[str, str] = {
    "bench.passes": "1",
    "bench.warmup_requests": "0",
    "bench.parity_prompts": "0",
    "bench.percentiles": "[50]",
    "bench.workload.requests": "24",
    "bench.workload.output_tokens": "3",
    "bench.load.users": "4",
    "bench.validity.max_drift": "0.5",
}


@pytest.mark.parametrize(
    ("rule", "times", "settings"),
    [
        (None, {}, {"bench.warmup_requests": "2"}),
        long(None, {}, {"bench.load.shape": "constant", "bench.load.rate_per_s": "20"}),
        ("failed_requests", {"fail_every": 5}, {}),
        long("generator_ceiling", {}, {"bench.validity.max_generator_load": "0.000001"}),
        ("generator_lag", {}, {"bench.validity.max_lag_s": "0.000000001"}),
        long(
            "offered_rate",
            {},
            {"bench.load.shape": "constant", "bench.load.rate_per_s": "200", "bench.load.max_in_flight": "1"},
        ),
        long("output_length", {"tokens": 2}, {}),
        long("warm_cache", {"hit_share": 0.5}, {}),
        long("steady_state", {"slower_after": 12, "slow_s": 0.5}, {}),
        long("steady_state", {}, {"bench.workload.requests": "7"}),
        long("sample_size", {}, {"bench.percentiles": "[99]"}),
    ],
)
def test_a_run_counts_unless_a_rule_says_otherwise(
    tmp_path: Path,
    layered: Layered,
    capsys: pytest.CaptureFixture[str],
    rule: str | None,
    times: dict[str, Any],
    settings: dict[str, str],
) -> None:
    overrides = [word for name, value in {**GOOD, **settings}.items() for word in (f"--{name}", value)]
    rung = layered(queue_s=0.05, decode_s=0.02, **times)
    # In this process, as the imports would take longer than the load.
    status = main(["bench", "load", rung.url, "--model", "m", "--out", str(tmp_path / "out"), *overrides])
    output = capsys.readouterr().out
    last = json.loads(output.splitlines()[-1])
    found = {finding.rpartition(": ")[2] for finding in last["findings"]}
    # So few requests support nothing else either.
    assert found - ({"sample_size"} if rule == "steady_state" else set()) == ({rule} if rule else set()), output
    assert (status, last["valid"]) == ((0, True) if rule is None else (1, False))
    assert ("NOT VALID" in output) == (rule is not None)
    assert {"result.json", "requests.jsonl", "report.md", "report.html"} <= {
        file.name for file in (tmp_path / "out").iterdir()
    }
    assert read_document(tmp_path / "out")["valid"] is last["valid"]


@pytest.fixture
def a_tenth_of_a_core() -> Iterator[Path]:
    """The file that takes a process into a control group with a CPU quota."""
    folder = next((part for part in (CGROUPS / "cpu", CGROUPS) if part.is_dir()), CGROUPS) / f"litport-{os.getpid()}"
    try:
        folder.mkdir()
        if (folder / "cpu.max").exists():
            (folder / "cpu.max").write_text("10000 100000")
        else:
            (folder / "cpu.cfs_period_us").write_text("100000")
            (folder / "cpu.cfs_quota_us").write_text("10000")
    except OSError as problem:
        with contextlib.suppress(OSError):
            folder.rmdir()
        pytest.skip(f"NOT TESTED UNDER A CPU QUOTA: this machine lets no control group with one be made: {problem}")
    yield folder / "cgroup.procs"
    folder.rmdir()


@pytest.mark.long
def test_a_run_that_the_cpu_quota_held_back_does_not_count(layered: Layered, a_tenth_of_a_core: Path) -> None:
    # Sampling without a pause keeps the harness at its quota all the time. It begins after the warm-up, in the group.
    busy = {**GOOD, "bench.sample_interval_s": "0.001", "bench.warmup_requests": "2"}
    overrides = [word for name, value in busy.items() for word in (f"--{name}", value)]
    rung = layered(queue_s=0.05, decode_s=0.02)
    words = [*LITPORT, "bench", "load", rung.url, "--model", "m", *overrides]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as harness:
        assert harness.stderr is not None
        assert any("measuring" in line for line in harness.stderr)
        a_tenth_of_a_core.write_text(str(harness.pid))  # its start took long enough without
        output, errors = harness.communicate(timeout=120)
    assert harness.returncode == 1, output + errors
    assert f"{rung.url}: cpu_throttled" in json.loads(output.splitlines()[-1])["findings"]


def test_a_gate_of_no_answers_is_refused(tmp_path: Path) -> None:
    settings = LitportSettings.model_validate({"bench": {"parity_prompts": 0}})
    with pytest.raises(UserError, match=r"expected bench\.parity_prompts of 1 or more"):
        commands.run_recipe(LoadedSettings(settings, {}), tmp_path, require_parity=True, confirm=False)


def test_advice_is_confirmed_where_litport_is_measured(tmp_path: Path) -> None:
    settings = LitportSettings.model_validate({"bench": {"rungs": ["vllm-offline", "vllm"]}})
    with pytest.raises(UserError, match=r"^--confirm: expected litport among bench\.rungs, .* got vllm-offline, vllm$"):
        commands.run_recipe(LoadedSettings(settings, {}), tmp_path, require_parity=False, confirm=True)


def test_a_result_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text("{}")
    done = litport("bench", "load", "http://127.0.0.1:9", "--model", "m", "--out", str(tmp_path))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "holds a result already" in done.stderr


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://somewhere", "expected a URL such as http://127.0.0.1:8000, got 'ftp://somewhere'"),
        ("http://127.0.0.1:9/predict/m", "--body: expected the JSON request to send to /predict/m"),
    ],
)
def test_a_wrong_url_is_one_line(url: str, words: str) -> None:
    done = litport("bench", "load", url, "--model", "m")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert words in done.stderr


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        (None, "ConnectionRefusedError"),
        ({"fail_every": 1}, "status 500: told to fail"),
        ({"fail_every": 1, "fail_status": 401}, "status 401: told to fail; --key, or OPENAI_API_KEY, gives a key"),
        ({"fail_every": 1, "fail_status": 404}, "status 404: told to fail; --model names the model"),
    ],
    ids=["nothing listens", "it only fails", "wrong key", "wrong model"],
)
def test_a_server_that_answers_nothing_is_one_line(
    layered: Layered, capsys: pytest.CaptureFixture[str], fault: dict[str, Any] | None, problem: str
) -> None:
    url = "http://127.0.0.1:9" if fault is None else layered(**fault).url
    assert main(["bench", "load", url, "--model", "m"]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("litport: ")]
    assert line.startswith(f"litport: {url}: no request of the warm-up was answered: ")
    assert problem in line
