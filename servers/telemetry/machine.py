"""The hardware of this machine: cores, memory, GPUs and their driver.

It comes from the operating system and from NVIDIA's `nvidia-smi`, where that is installed.
"""

import os
import shutil
import subprocess
from dataclasses import dataclass

from servers.telemetry.memory import memory


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA GPU as its driver names it."""

    name: str
    memory_mib: int
    driver: str


@dataclass(frozen=True)
class Hardware:
    """`cores` are those this process may use; memory is in bytes."""

    cores: int
    memory_bytes: int
    available_bytes: int
    gpus: tuple[Gpu, ...]


def detect() -> Hardware:
    """Read the hardware; takes up to about a second on a machine with an NVIDIA driver."""
    return Hardware(len(os.sched_getaffinity(0)), *memory(), _gpus())


def _gpus() -> tuple[Gpu, ...]:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ()
    query = [tool, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()  # the tool is installed, a driver is not
    rows = (line.rsplit(", ", 2) for line in answer.stdout.splitlines())
    return tuple(Gpu(name, int(memory), driver) for name, memory, driver in rows)
