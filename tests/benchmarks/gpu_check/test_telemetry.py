"""Part 1 of the GPU check against a stand-in for NVIDIA's library: the comparison is tested, no card is."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu_check.check import Check, Recorder, outcome_of, read_checks
from benchmarks.gpu_check.telemetry import Watch, compare_energy
from tests.services import gpus

_ROOT = Path(__file__).resolve().parents[3]
_COMPARE = """
import sys
from pathlib import Path
from benchmarks.gpu_check.check import Recorder
from benchmarks.gpu_check.telemetry import compare, running_load
with running_load([sys.executable, "-m", "tests.benchmarks.gpu_check.stand_in_load"], settle_s=0.15) as load:
    compare(Recorder(Path(sys.argv[1])), load, seconds=0.4)
"""


@pytest.fixture(scope="module")
def checks(library: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Check]:
    """The checks by name."""
    folder = tmp_path_factory.mktemp("telemetry")
    answers = folder / "answers"
    answers.write_text("count 1\n0.uuid GPU-a\n", encoding="utf-8")
    environ = {**os.environ, **gpus.environ(library, answers)}
    command = [sys.executable, "-W", "error", "-c", _COMPARE, str(folder / "checks")]
    subprocess.run(command, cwd=_ROOT, env=environ, check=True, timeout=60)
    return {check.name: check for check in read_checks(folder / "checks")}


def test_a_reading_that_is_not_the_load_fails_and_the_others_pass(checks: dict[str, Check]) -> None:
    # The processor time of a sample is a matter of this machine.
    others = {name: check for name, check in checks.items() if check.name != "processor time of a sample"}
    failed = [check for check in others.values() if check.outcome == "failed"]
    assert failed == [Check("a kernel that runs 10 % of the time reads as that", "failed", 37.0, "5 to 15 %")]
    assert checks["a kernel that runs 50 % of the time reads as that"].value == 50
    assert checks["4 GiB allocated show up for the process"].value == 4
    assert checks["products of matrices: SM activity"].value == 90


def test_what_the_card_does_not_tell_is_null_with_its_reason(checks: dict[str, Check]) -> None:
    missing = {name: check.reason for name, check in checks.items() if check.outcome == "not run"}
    reason = "the card or its driver does not tell"
    assert missing == {"temperature is there": reason, "energy from power samples over the card's counter": reason}
    assert all(checks[name].value is None for name in missing)


@pytest.mark.parametrize(("energy_j", "outcome"), [(2500.0, "passed"), (2200.0, "failed"), (None, "not run")])
def test_energy_is_the_integral_of_power(tmp_path: Path, energy_j: float | None, outcome: str) -> None:
    watch = Watch(10.0, {"energy_j": energy_j, "power_w": 250.0}, None, 100, {}, 0.1)
    compare_energy(Recorder(tmp_path / "checks"), watch)
    assert outcome_of(read_checks(tmp_path / "checks")) == outcome
