"""Processes as Linux shows them in /proc.

This module uses the standard library only, so that the reaper stays small.
"""

import os
from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Stat(NamedTuple):
    """One process at one moment, from its file `stat` (proc_pid_stat(5)).

    `cpu_ticks` is user and system time, `waited_ticks` that of its children that ended and were waited for. A process
    id is used again after its process has ended; `start_ticks` tells the two processes apart.
    """

    pid: int
    state: str
    parent_pid: int
    group_id: int
    cpu_ticks: int
    waited_ticks: int
    start_ticks: int
    resident_pages: int

    @property
    def is_dead(self) -> bool:
        """Whether it has ended and only waits for its parent (a zombie)."""
        return self.state in "ZX"


def stats(proc: Path = PROC, leave_out: Container[int] = ()) -> Iterator[Stat]:
    """Every process, zombies too, without those with the ids in `leave_out`."""
    for name in os.listdir(proc):  # noqa: PTH208 # half the cost of iterdir, and telemetry calls it twice a second
        if name.isdigit() and int(name) not in leave_out and (stat := read_stat(int(name), proc)):
            yield stat


def read_stat(pid: int, proc: Path = PROC) -> Stat | None:
    """One process, which may be a zombie; None where no process has this id."""
    # The name of the program stands in brackets and may hold spaces and brackets itself.
    fields = read_text(proc / str(pid) / "stat").rpartition(")")[2].split()
    if not fields:
        return None
    parent_pid, group_id = int(fields[1]), int(fields[2])
    user, system, waited_user, waited_system = map(int, fields[11:15])
    ticks = (user + system, waited_user + waited_system, int(fields[19]))
    return Stat(pid, fields[0], parent_pid, group_id, *ticks, int(fields[21]))


def read_title(pid: int) -> str:
    """The command line of a process, or the title that it has given itself; empty for a process that has ended."""
    return read_text(PROC / str(pid) / "cmdline").replace("\0", " ").strip()


def read_share(pid: int) -> int | None:
    """The memory of a process in bytes, each shared page divided among those that share it (PSS); None if unknown."""
    for line in read_text(PROC / str(pid) / "smaps_rollup").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return None


def stopped_pids(pids: Iterable[int]) -> list[int]:
    """Those of the processes that a signal has stopped (SIGSTOP, SIGTSTP)."""
    return [pid for pid in pids if (stat := read_stat(pid)) and stat.state == "T"]


def cpu_s(pids: Iterable[int]) -> float:
    """The processor time that the living of these processes have used, in seconds."""
    stats = [stat for pid in pids if (stat := read_stat(pid)) and not stat.is_dead]
    return sum(stat.cpu_ticks for stat in stats) / TICKS_PER_S


def delay_s(pids: Iterable[int]) -> float:
    """How long the threads of these processes were ready to run and had no processor, in seconds.

    0 where the kernel does not count it (CONFIG_SCHED_INFO).
    """
    texts = [read_text(folder / "schedstat") for pid in pids for folder in (PROC / str(pid) / "task").glob("*")]
    return sum(int(fields[1]) for text in texts if (fields := text.split())) / 1e9


def read_text(path: Path) -> str:
    """The text of one of the kernel's small files; empty where it is gone or we may not read it."""
    try:
        file = os.open(path, os.O_RDONLY)
    except (FileNotFoundError, ProcessLookupError, PermissionError, NotADirectoryError):
        return ""
    try:
        return os.read(file, 65536).decode(errors="replace")
    except ProcessLookupError:
        return ""  # the process ended between the two calls
    finally:
        os.close(file)
