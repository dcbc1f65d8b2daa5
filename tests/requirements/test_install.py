"""The set-up of the environment."""

import os
from pathlib import Path

import pytest

from requirements.install import detected_flavour


@pytest.mark.skipif(Path("/proc/driver/nvidia/version").exists(), reason="this machine has an NVIDIA driver")
@pytest.mark.parametrize(("status", "flavour"), [(0, "cuda"), (9, "cpu")])
def test_the_flavour_follows_the_driver(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, status: int, flavour: str
) -> None:
    nvidia_smi = tmp_path / "nvidia-smi"
    nvidia_smi.write_text(f"#!/bin/sh\nexit {status}\n", encoding="utf-8")
    nvidia_smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert detected_flavour() == flavour
