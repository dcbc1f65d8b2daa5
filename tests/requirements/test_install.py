"""The set-up of the environment."""

import os
from pathlib import Path

import pytest

from requirements import install
from requirements.install import SetupError, detected_flavour


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


def test_venv_gets_the_newest_python_and_the_others_stand_by(path: Path) -> None:
    for name, version in {"python3": "3.12", "python3.11": "3.11", "python3.13": "3.13", "python3.14": "3.14"}.items():
        _write_python(path / name, version)
    _write_python(path / "python3.12", "", status=127)  # pyenv's, for a version that is not activated
    commands = [command[0] for command in install._venv_commands()]
    assert commands == [f"/opt/{version}/bin/python{version}" for version in ("3.13", "3.12", "3.11")]


def test_where_no_python_fits_the_error_says_which_would(path: Path) -> None:
    _write_python(path / "python3", "3.10")
    with pytest.raises(SetupError, match=r"a Python from 3\.11 to 3\.13 with its venv module was not found"):
        install._venv_commands()


def test_uv_makes_the_venv_where_no_python_fits(path: Path) -> None:
    _write_python(path / "uv", "")
    assert install._venv_commands() == [["uv", "venv", "--seed", "--python", "3.13", str(install.VENV)]]


@pytest.fixture
def path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The only folder of programs, and no Python that runs the set-up."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.executable", str(tmp_path / "none"))
    return tmp_path


def _write_python(program: Path, version: str, status: int = 0) -> None:
    program.write_text(f"#!/bin/sh\necho {version}\necho /opt/{version}\nexit {status}\n", encoding="utf-8")
    program.chmod(0o755)
