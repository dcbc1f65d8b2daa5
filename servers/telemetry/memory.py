"""The memory that there is for us: the machine's, or less where a container's control group allows less."""

from pathlib import Path
from typing import NamedTuple

import psutil

from servers.telemetry.cgroup import CGROUPS, PROC, folder_with, read


class Memory(NamedTuple):
    """Bytes in all, and those that can still be had."""

    total_bytes: int
    available_bytes: int


def memory(proc: Path = PROC, cgroups: Path = CGROUPS) -> Memory:
    """What there is now. File pages that the kernel can drop count as available, in a control group, too."""
    host = psutil.virtual_memory()
    limit, used = _limit(proc, cgroups)
    if limit is None or limit >= host.total:
        return Memory(host.total, host.available)
    return Memory(limit, max(0, min(host.available, limit - used)))


def _limit(proc: Path, cgroups: Path) -> tuple[int | None, int]:
    """The control group's limit (None: none) and what it uses of that, in bytes."""
    for maximum, current, droppable in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        if folder := folder_with("memory", maximum, proc, cgroups):
            limit, used = read(folder / maximum).strip(), read(folder / current).strip()
            stat = dict(line.split() for line in read(folder / "memory.stat").splitlines())
            if limit.isdigit() and used.isdigit():
                return int(limit), int(used) - int(stat.get(droppable, 0))
    return None, 0
