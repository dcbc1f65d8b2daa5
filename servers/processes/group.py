"""A process group: the processes of one model, listed and ended together.

A model is a tree of processes (vLLM's API server, engine and workers; LitServe's manager, API servers and workers) in a
process group of its own. Signals go to processes of the group only, never to a process by its name.
"""

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from servers.processes.proc import PAGE_BYTES, TICKS_PER_S, delay_s, read_share, read_stat, read_title, stats

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 # where the kernel keeps it, not a temporary folder of ours


@dataclass(frozen=True)
class Member:
    """One living process of a group. `title` is its command line as /proc shows it (vLLM sets its own)."""

    pid: int
    parent_pid: int
    title: str
    resident_bytes: int


@dataclass(frozen=True)
class ProcessGroup:
    """A process group by its id, which is the process id of its first process."""

    group_id: int

    def members(self) -> list[Member]:
        """The living processes of the group, without zombies."""
        return [
            Member(stat.pid, stat.parent_pid, read_title(stat.pid), stat.resident_pages * PAGE_BYTES)
            for stat in stats()
            if stat.group_id == self.group_id and not stat.is_dead
        ]

    def memory_bytes(self) -> int | None:
        """The memory of all its processes, shared pages by their share (PSS); None where the kernel does not say.

        None, too, for a group whose first process has ended or of which one ends meanwhile: what is left of it says
        little of its size. The kernel walks the page tables for it: tens of milliseconds for a large process.
        """
        pids = [member.pid for member in self.members()]
        shares = [share for pid in pids if (share := read_share(pid)) is not None]
        return sum(shares) if self.group_id in pids and len(shares) == len(pids) else None

    def cpu_s(self) -> float:
        """How long its processes have computed, in seconds; only differences say something.

        Those that have ended count where they were waited for, as those of a compiler are.
        """
        return (
            sum(stat.cpu_ticks + stat.waited_ticks for stat in stats() if stat.group_id == self.group_id) / TICKS_PER_S
        )

    def delays_s(self) -> dict[int, float]:
        """How long each of its processes has waited for a processor, in seconds, by process id."""
        return {stat.pid: delay_s([stat.pid]) for stat in stats() if stat.group_id == self.group_id}

    def terminate(self) -> None:
        """Ask every process of the group to end (SIGTERM); does not wait."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.group_id, signal.SIGTERM)

    def kill(self, patience_s: float = 3.0) -> bool:
        """Kill every process of the group and wait until it is empty; blocks for at most about `patience_s` seconds.

        multiprocessing's resource trackers go last: they remove the shared memory and semaphores of the killed
        processes, and end by themselves once those are gone. Returns whether the group is empty.
        """
        try:
            return self._kill(time.monotonic() + patience_s)
        finally:
            _remove_openmp_files()

    def reap(self) -> None:
        """Collect orphans of this group that have ended; in a container they become children of process 1, of us."""
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-self.group_id, os.WNOHANG)[0]:
                pass

    def _kill(self, deadline_s: float) -> bool:
        while members := self.members():
            trackers = {member.pid for member in members if "multiprocessing.resource_tracker" in member.title}
            out_of_time = time.monotonic() > deadline_s
            for member in members:
                if out_of_time or member.pid not in trackers:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(member.pid, signal.SIGKILL)
            if out_of_time:
                time.sleep(0.05)
                return not self.members()
            time.sleep(0.02)
        return True


def _remove_openmp_files() -> None:
    """Remove what Intel's OpenMP leaves in shared memory for each process that was killed."""
    for file in _SHARED_MEMORY.glob(f"__KMP_REGISTERED_LIB_*_{os.getuid()}"):
        stat = read_stat(int(file.name.split("_")[-2]))
        if stat is None or stat.is_dead:
            file.unlink(missing_ok=True)
