"""How busy the processors are: the processes of each model, the host, and the throttling by a control group.

One pass over /proc serves every model; psutil would make one for each. The counters of a model only grow: when a
process ends, the model's total keeps what that process had used in its last reading. What cannot be read is None.
"""

import os
import re
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from servers.processes.proc import PAGE_BYTES, PROC, TICKS_PER_S, Stat, read_text, stats
from servers.telemetry.cgroup import CGROUPS, folder_with

# A process of the host that is no model's is left out for so long: it becomes one's only when its id is used again.
_FOREIGN_S = 20.0

Roots = Mapping[str, int | Collection[int]]
_SWITCHES = re.compile(r"voluntary_ctxt_switches:\s+(\d+)")


@dataclass(frozen=True)
class ModelSample:
    """What the processes of one model had used at one moment.

    `cpu_s` is user and system time since they started. A process that has ended counts with its last reading; one that
    lived only between two readings is missed. `resident_bytes` is the sum over the processes, so shared pages count
    more than once. Context switches are those of all threads, and None in a reading without them.
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
    """Reads the processes of the models, again and again; keeps the last readings, to count processes that end."""

    def __init__(self, proc: Path = PROC) -> None:
        self._proc = proc
        self._foreign: set[int] = set()
        self._foreign_until_s = 0.0
        self._roots: set[int] = set()
        self._ticks: dict[tuple[int, int], int] = {}
        self._switches: dict[tuple[int, int, int], tuple[int, int]] = {}
        self._totals: dict[str, _Totals] = {}

    def read(self, roots: Roots, switches: bool = True) -> tuple[dict[str, ModelSample], dict[int, str]]:
        """One sample a model, and the model of each process id.

        `roots` maps a model to its root process, or to its process group, or to several: the model owns the root, the
        group, and all that descends from them, down to where another model's root begins. `switches=False` leaves out
        the context switches, which cost one file a thread to read.
        """
        now_s = time.monotonic()
        names = {root: name for name, ids in roots.items() for root in ([ids] if isinstance(ids, int) else ids)}
        if now_s >= self._foreign_until_s or not self._roots.issuperset(names):
            self._foreign, self._foreign_until_s = set(), now_s + _FOREIGN_S
        self._roots = set(names)
        # Zombies too: the time they used still counts.
        table = {stat.pid: stat for stat in stats(self._proc, self._foreign)}
        owners = _owners(table, names)
        self._foreign.update(table.keys() - owners.keys())
        self._totals = {name: total for name, total in self._totals.items() if name in roots}
        self._count(table, owners)
        if switches:
            self._count_switches(table, owners)
        alive: dict[str, list[Stat]] = {name: [] for name in roots}
        for pid, name in owners.items():
            if not table[pid].is_dead:
                alive[name].append(table[pid])
        samples = {name: _sample(processes, self._totals.get(name), switches) for name, processes in alive.items()}
        return samples, owners

    def _count(self, table: Mapping[int, Stat], owners: Mapping[int, str]) -> None:
        ticks = {(pid, table[pid].start_ticks): table[pid].cpu_ticks for pid in owners}
        for pid, name in owners.items():
            key = (pid, table[pid].start_ticks)
            self._totals.setdefault(name, _Totals()).ticks += ticks[key] - self._ticks.get(key, 0)
        self._ticks = ticks

    def _count_switches(self, table: Mapping[int, Stat], owners: Mapping[int, str]) -> None:
        switches_by_thread: dict[tuple[int, int, int], tuple[int, int]] = {}
        for pid, name in owners.items():
            total = self._totals[name]
            for thread_id, switches in _thread_switches(self._proc / str(pid) / "task"):
                key = (pid, table[pid].start_ticks, thread_id)
                before = self._switches.get(key, (0, 0))
                if switches[0] < before[0] or switches[1] < before[1]:
                    before = (0, 0)  # a new thread has the id of one that ended
                total.voluntary += switches[0] - before[0]
                total.involuntary += switches[1] - before[1]
                switches_by_thread[key] = switches
        self._switches = switches_by_thread


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
            int(field) for field in read_text(self._stat).partition("\n")[0].split()[1:9]
        ]
        now = (sum(ticks), user + nice + system + irq + soft_irq, steal)
        before, self._before = self._before, now
        limit = dict(line.split() for line in read_text(self._limit).splitlines()) if self._limit else {}
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


def _owners(table: Mapping[int, Stat], names: Mapping[int, str]) -> dict[int, str]:
    """The model of each process that has one."""
    owners: dict[int, str | None] = {}

    def owner(pid: int) -> str | None:
        if pid not in owners and pid in table:
            owners[pid] = None  # ends a circle, which ids that were used again during the reading could close
            owners[pid] = names.get(pid) or names.get(table[pid].group_id) or owner(table[pid].parent_pid)
        return owners.get(pid)

    return {pid: name for pid in table if (name := owner(pid)) is not None}


def _sample(alive: list[Stat], total: _Totals | None, switches: bool) -> ModelSample:
    switch_total = total if switches else None
    return ModelSample(
        processes=len(alive),
        cpu_s=None if total is None else total.ticks / TICKS_PER_S,
        resident_bytes=sum(stat.resident_pages for stat in alive) * PAGE_BYTES if alive else None,
        voluntary_switches=None if switch_total is None else switch_total.voluntary,
        involuntary_switches=None if switch_total is None else switch_total.involuntary,
    )


def _thread_switches(tasks: Path) -> list[tuple[int, tuple[int, int]]]:
    """Each living thread's voluntary and involuntary context switches, from its `status` (proc_pid_status(5))."""
    try:
        names = os.listdir(tasks)  # noqa: PTH208 # as in `stats`
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return []
    threads = ((int(name), _SWITCHES.findall(read_text(tasks / name / "status"))) for name in names)
    return [(thread_id, (int(counts[0]), int(counts[1]))) for thread_id, counts in threads if len(counts) == 2]
