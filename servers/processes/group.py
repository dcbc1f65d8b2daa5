"""The processes of one model, seen and ended as a group.

A model is a tree of processes (vLLM's API server, engine and workers; LitServe's manager, API servers and workers) in a
process group of its own. This module lists such a group from /proc and ends it. It uses the standard library only, so
that the reaper stays small, and it never signals a process by name.
"""

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 # where the kernel keeps it, not a temporary folder of ours
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Member:
    """One living process of a group. `title` is its command line as /proc shows it (vLLM sets its own)."""

    pid: int
    parent_pid: int
    title: str
    resident_bytes: int


def members(group_id: int) -> list[Member]:
    """The living processes of the group, zombies left out."""
    return [member for entry in Path("/proc").iterdir() if entry.name.isdigit() and (member := _read(entry, group_id))]


def kill(group_id: int, patience_s: float = 3.0) -> bool:
    """Kill every process of the group and wait until it is empty; blocks for at most about `patience_s` seconds.

    multiprocessing's resource trackers go last: they remove the shared memory and semaphores of the processes that
    were killed, and end by themselves once those are gone. Returns whether the group is empty.
    """
    try:
        return _kill(group_id, time.monotonic() + patience_s)
    finally:
        _sweep()


def terminate(group_id: int) -> None:
    """Ask every process of the group to end (SIGTERM); does not wait."""
    try:
        os.killpg(group_id, signal.SIGTERM)
    except ProcessLookupError:
        return


def stopped(pids: Iterable[int]) -> list[int]:
    """Those of the processes that a signal has stopped (SIGSTOP, SIGTSTP)."""
    return [pid for pid in pids if (fields := _fields(Path("/proc", str(pid)))) and fields[0] == "T"]


def cpu_s(pids: Iterable[int]) -> float:
    """The processor time that these processes have taken so far, in seconds."""
    found = (_fields(Path("/proc", str(pid))) for pid in pids)
    return sum(int(fields[11]) + int(fields[12]) for fields in found if fields) / _TICKS_PER_S


def reap(group_id: int) -> None:
    """Take note that orphans of this group have ended; in a container they become the children of process 1, of us."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-group_id, os.WNOHANG)[0]:
            pass


def _kill(group_id: int, deadline: float) -> bool:
    while alive := members(group_id):
        spared = {member.pid for member in alive if "multiprocessing.resource_tracker" in member.title}
        out_of_time = time.monotonic() > deadline
        for member in alive:
            if out_of_time or member.pid not in spared:
                _signal(member.pid, signal.SIGKILL)
        if out_of_time:
            time.sleep(0.05)
            return not members(group_id)
        time.sleep(0.02)
    return True


def _sweep() -> None:
    """Remove what Intel's OpenMP leaves in shared memory for each process that did not end by itself."""
    for file in _SHARED_MEMORY.glob(f"__KMP_REGISTERED_LIB_*_{os.getuid()}"):
        if _fields(Path("/proc", file.name.split("_")[-2])) is None:
            file.unlink(missing_ok=True)


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _read(entry: Path, group_id: int) -> Member | None:
    fields = _fields(entry)
    if fields is None or int(fields[2]) != group_id:
        return None
    try:
        title = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return None  # it ended while we looked
    return Member(int(entry.name), int(fields[1]), title, int(fields[21]) * _PAGE_BYTES)


def _fields(entry: Path) -> list[str] | None:
    """State, parent, group, ... of a process, resident pages the 22nd (proc(5)); None when it does not live."""
    try:
        fields = (entry / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else fields
