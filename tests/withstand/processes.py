"""What every process of a running platform holds: memory, descriptors, threads, and the dead that nobody has buried.

Resident memory says little about leaks: the page cache comes and goes in it, and pages that are shared count more than
once. What is read here is anonymous and shared memory, each page divided among those that map it, and what of it is
swapped. It refuses to guess: what ends while it is looked at is left out.
"""

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from servers.processes.proc import PROC, Stat, read_title, stats

_KEPT = ("Pss_Anon:", "Pss_Shmem:", "SwapPss:")


@dataclass(frozen=True)
class Reading:
    """One process at one moment; `key` names it across moments, and is not given anew as process ids are."""

    key: str
    memory_bytes: int
    descriptors: int
    threads: int


@dataclass(frozen=True)
class Moment:
    """The whole tree: each process, and how many of its dead wait for their parent."""

    processes: dict[str, Reading]
    zombies: int

    @property
    def descriptors(self) -> dict[str, int]:
        """The open descriptors of each process."""
        return {key: reading.descriptors for key, reading in self.processes.items()}


def read(root_pid: int, groups: Mapping[int, str]) -> Moment:
    """Read the platform whose front door is `root_pid`; `groups` maps a process group to its model.

    Each model and the platform as a whole also appear as sums, because what leaks may hide in processes that come and
    go.
    """
    processes: dict[str, Reading] = {}
    zombies = 0
    for process in descendants(root_pid):
        if process.is_dead:
            zombies += process.pid != root_pid
        elif reading := _reading(process, root_pid, groups):
            processes[reading.key] = reading
    sums: dict[str, Counter[str]] = {}
    for reading in processes.values():
        for owner in {reading.key.partition("/")[0], "platform"}:
            counts = {"memory": reading.memory_bytes, "descriptors": reading.descriptors, "threads": reading.threads}
            sums.setdefault(owner, Counter()).update(counts)
    for owner, total in sums.items():
        key = f"{owner}/sum"
        processes[key] = Reading(key, total["memory"], total["descriptors"], total["threads"])
    return Moment(processes, zombies)


def descendants(root_pid: int) -> list[Stat]:
    """The process and all that descends from it, the dead included."""
    table = list(stats())
    family = [process for process in table if process.pid == root_pid]
    for ancestor in family:  # grows while it is walked
        family += [process for process in table if process.parent_pid == ancestor.pid]
    return family


def role(title: str) -> str:
    """What a process is, in a word or two, by its command line."""
    if title.startswith("VLLM::"):
        return title.split()[0]
    for word, meaning in _ROLES.items():
        if word in title:
            return meaning
    return Path(title.partition(" ")[0]).name or "nameless"  # just forked, or about to end


_ROLES = {
    "servers.processes.reaper": "reaper",
    "resource_tracker": "resource tracker",
    "spawn_main": "worker",
    "servers.engines.vllm.child.main": "API server",
    "servers.engines.litserve.main": "worker host",
    "litport": "front door",
}


def _reading(process: Stat, root_pid: int, groups: Mapping[int, str]) -> Reading | None:
    folder = PROC / str(process.pid)
    title = read_title(process.pid)
    try:
        fields = [line.split() for line in (folder / "smaps_rollup").read_text().splitlines()[1:]]
        memory_bytes = sum(int(field[1]) * 1024 for field in fields if field[0] in _KEPT)
        descriptors = len(os.listdir(folder / "fd"))  # noqa: PTH208 # a name each; a Path each would cost more
        threads = len(os.listdir(folder / "task"))  # noqa: PTH208 # as above
    except (FileNotFoundError, ProcessLookupError):
        return None
    owner = groups.get(process.group_id, "litport")
    name = "front door" if process.pid == root_pid else role(title)
    return Reading(f"{owner}/{name} {process.pid}.{process.start_ticks}", memory_bytes, descriptors, threads)
