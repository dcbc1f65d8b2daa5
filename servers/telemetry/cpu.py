"""How busy the processors are: the processes of each model, the host, and the limit that a control group sets.

One pass over /proc serves every model, where psutil would make one for each. Counters only grow: a process that ended
keeps, in its model's total, what it had used when it was last seen, so a restart never looks like time given back. What
cannot be read is None, never 0 and never a guess.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from servers.telemetry.cgroup import CGROUPS, PROC, folder_with, read

_SWITCHES = re.compile(r"voluntary_ctxt_switches:\s+(\d+)")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class ModelSample:
    """What the processes of one model had used at one moment.

    `cpu_s` is user and system time since they started; a process that ended counts as last seen, one that lived only
    between two readings is missed. `resident_bytes` adds the processes up, so pages that they share count more than
    once. Context switches are those of all threads, and None in a reading that left them out.
    """

    processes: int
    cpu_s: float | None
    resident_bytes: int | None
    voluntary_switches: int | None
    involuntary_switches: int | None


@dataclass(frozen=True)
class HostSample:
    """The host since the reading before (percent of all cores; None in the first), and its throttling so far.

    `cpu_percent` leaves out idle, waiting for a disk, and stolen time. `nr_throttled` counts the periods in which our
    control group ran into its CPU quota, and `throttled_usec` the time its tasks then waited, summed over the cores.
    """

    cpu_percent: float | None
    steal_percent: float | None
    nr_throttled: int | None
    throttled_usec: int | None


class Processes:
    """Reads the processes of the models, again and again; remembers what it saw, to add up what ended."""

    def __init__(self, proc: Path = PROC) -> None:
        self._proc = proc
        self._ticks: dict[tuple[int, int], int] = {}
        self._switches: dict[tuple[int, int, int], tuple[int, int]] = {}
        self._totals: dict[str, _Totals] = {}

    def read(self, roots: Mapping[str, int], switches: bool = True) -> tuple[dict[str, ModelSample], dict[int, str]]:
        """One sample a model, and the model of each process id.

        `roots` maps a model to its root process, or to its process group: the model owns the root, the group, and all
        that descends from them, down to where another model's root begins. `switches=False` leaves out the context
        switches, which cost one file a thread to read.
        """
        table = _table(self._proc)
        owners = _owners(table, {root: name for name, root in roots.items()})
        self._totals = {name: total for name, total in self._totals.items() if name in roots}
        self._count(table, owners)
        if switches:
            self._count_switches(table, owners)
        alive: dict[str, list[_Process]] = {name: [] for name in roots}
        for pid, name in owners.items():
            if not table[pid].dead:
                alive[name].append(table[pid])
        samples = {name: _sample(living, self._totals.get(name), switches) for name, living in alive.items()}
        return samples, owners

    def _count(self, table: "Mapping[int, _Process]", owners: Mapping[int, str]) -> None:
        seen = {(pid, table[pid].started): table[pid].ticks for pid in owners}
        for pid, name in owners.items():
            key = (pid, table[pid].started)
            self._totals.setdefault(name, _Totals()).ticks += seen[key] - self._ticks.get(key, 0)
        self._ticks = seen

    def _count_switches(self, table: "Mapping[int, _Process]", owners: Mapping[int, str]) -> None:
        seen: dict[tuple[int, int, int], tuple[int, int]] = {}
        for pid, name in owners.items():
            total = self._totals[name]
            for thread_id, switches in _thread_switches(self._proc / str(pid) / "task"):
                key = (pid, table[pid].started, thread_id)
                before = self._switches.get(key, (0, 0))
                if switches[0] < before[0] or switches[1] < before[1]:
                    before = (0, 0)  # the number of a thread that ended went to a new one
                total.voluntary += switches[0] - before[0]
                total.involuntary += switches[1] - before[1]
                seen[key] = switches
        self._switches = seen


class Host:
    """Reads the host's processors and our control group's throttling, again and again."""

    def __init__(self, proc: Path = PROC, cgroups: Path = CGROUPS) -> None:
        self._stat = proc / "stat"
        folder = folder_with("cpu", "cpu.stat", proc, cgroups)
        self._limit = folder / "cpu.stat" if folder else None
        self._before: tuple[int, int, int] | None = None

    def read(self) -> HostSample:
        """The host since the last call (proc_stat(5)), and its throttling (cgroup v2 `cpu.stat`, or v1's)."""
        user, nice, system, _idle, _wait, irq, soft_irq, steal = ticks = [
            int(field) for field in read(self._stat).partition("\n")[0].split()[1:9]
        ]
        now = (sum(ticks), user + nice + system + irq + soft_irq, steal)
        before, self._before = self._before, now
        limit = dict(line.split() for line in read(self._limit).splitlines()) if self._limit else {}
        usec = int(limit["throttled_time"]) // 1000 if "throttled_time" in limit else limit.get("throttled_usec")
        nr_throttled = limit.get("nr_throttled")
        cpu_percent = steal_percent = None
        if before is not None and now[0] > before[0]:
            cpu_percent, steal_percent = (100 * (now[i] - before[i]) / (now[0] - before[0]) for i in (1, 2))
        return HostSample(
            cpu_percent,
            steal_percent,
            None if nr_throttled is None else int(nr_throttled),
            None if usec is None else int(usec),
        )


@dataclass
class _Totals:
    ticks: int = 0
    voluntary: int = 0
    involuntary: int = 0


class _Process(NamedTuple):
    parent_pid: int
    group_id: int
    ticks: int
    started: int
    pages: int
    dead: bool


def _table(proc: Path) -> dict[int, _Process]:
    """Every process, zombies too: what they used is still theirs (proc_pid_stat(5))."""
    found = {}
    for name in os.listdir(proc):  # noqa: PTH208 # half the cost of iterdir, twice a second
        if name.isdigit() and (text := read(proc / name / "stat")):
            fields = text.rpartition(")")[2].split()
            numbers = [int(fields[i]) for i in (1, 2, 11, 12, 19, 21)]
            parent_pid, group_id, user, system, started, pages = numbers
            found[int(name)] = _Process(parent_pid, group_id, user + system, started, pages, fields[0] in "ZX")
    return found


def _owners(table: Mapping[int, _Process], names: Mapping[int, str]) -> dict[int, str]:
    """The model of each process that has one."""
    found: dict[int, str | None] = {}

    def owner(pid: int) -> str | None:
        if pid not in found and pid in table:
            found[pid] = None  # ends a circle, which ids given anew while we read could close
            found[pid] = names.get(pid) or names.get(table[pid].group_id) or owner(table[pid].parent_pid)
        return found.get(pid)

    return {pid: name for pid in table if (name := owner(pid)) is not None}


def _sample(alive: list[_Process], total: _Totals | None, switches: bool) -> ModelSample:
    counted = total if switches else None
    return ModelSample(
        processes=len(alive),
        cpu_s=None if total is None else total.ticks / _TICKS_PER_S,
        resident_bytes=sum(process.pages for process in alive) * _PAGE_BYTES if alive else None,
        voluntary_switches=None if counted is None else counted.voluntary,
        involuntary_switches=None if counted is None else counted.involuntary,
    )


def _thread_switches(tasks: Path) -> list[tuple[int, tuple[int, int]]]:
    """Each living thread's voluntary and involuntary context switches, from its `status` (proc_pid_status(5))."""
    try:
        names = os.listdir(tasks)  # noqa: PTH208 # as above
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return []
    threads = ((int(name), _SWITCHES.findall(read(tasks / name / "status"))) for name in names)
    return [(thread_id, (int(counts[0]), int(counts[1]))) for thread_id, counts in threads if len(counts) == 2]
