"""The memory that we may use: the machine's, or less where the control group of a container sets a limit."""

from pathlib import Path
from typing import NamedTuple

import psutil

from servers.processes.proc import PROC, read_text
from servers.telemetry.cgroup import CGROUPS, folder_with


class Memory(NamedTuple):
    """Bytes in total, and bytes that are still available."""

    total_bytes: int
    available_bytes: int


def memory(proc: Path = PROC, cgroups: Path = CGROUPS) -> Memory:
    """The memory now. File pages that the kernel can drop count as available, in a control group as on the host."""
    host = psutil.virtual_memory()
    limit_bytes, used_bytes = _limit(proc, cgroups)
    if limit_bytes is None or limit_bytes >= host.total:
        return Memory(host.total, host.available)
    return Memory(limit_bytes, max(0, min(host.available, limit_bytes - used_bytes)))


def kills(proc: Path = PROC, cgroups: Path = CGROUPS) -> int | None:
    """How many processes the kernel has killed for lack of memory, by its own count; None where it does not say.

    The machine's count and our control group's together: only that it grows tells anything.
    """
    pages = [read_text(proc / "vmstat")]
    files = ("memory.events", "memory.oom_control")
    pages += [read_text(folder / file) for file in files if (folder := folder_with("memory", file, proc, cgroups))]
    counts = [int(count) for page in pages for name, count in map(str.split, page.splitlines()) if name == "oom_kill"]
    return sum(counts) if counts else None


def _limit(proc: Path, cgroups: Path) -> tuple[int | None, int]:
    """The control group's limit (None where there is none) and how much of it is in use, in bytes."""
    for maximum, current, droppable in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        if folder := folder_with("memory", maximum, proc, cgroups):
            limit, usage = read_text(folder / maximum).strip(), read_text(folder / current).strip()
            stat = dict(line.split() for line in read_text(folder / "memory.stat").splitlines())
            if limit.isdigit() and usage.isdigit():
                return int(limit), int(usage) - int(stat.get(droppable, 0))
    return None, 0
