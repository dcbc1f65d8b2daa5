"""The CUDA lock, which no machine without a GPU installs: every pin has a wheel for the image, of a hash it names."""

import subprocess
import venv
from pathlib import Path

import pytest

from requirements.lock import PLATFORM, PYTHONS, REQUIREMENTS, UV, pins

pytestmark = pytest.mark.long


def test_every_package_of_the_cuda_lock_can_be_had(tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "-qq", "--disable-pip-version-check", UV], check=True, timeout=120)
    lock = REQUIREMENTS / "cuda.txt"
    for version in PYTHONS:
        command = [python, "-m", "uv", "pip", "install", "--dry-run", "--no-deps", "--require-hashes", *PLATFORM]
        command += [f"--python-version={version}", f"--target={tmp_path / 'packages'}", f"--requirement={lock}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("\n + ") == len(pins(lock.read_text(encoding="utf-8"), version)), done.stderr
