"""The reaper: a small process that outlives the supervisor just long enough to clean up after it.

A supervisor that is killed with SIGKILL cannot end its models. The reaper reads lines from the supervisor's pipe
(`+GROUP` when a model's process group starts, `-GROUP` when it has ended). When the pipe closes, for whatever reason,
it ends the remaining groups and removes the folder of sockets. It ignores the signals that a terminal or an init system
sends to all processes.
"""

import contextlib
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from servers.processes.group import ProcessGroup
from servers.processes.interpreter import module_argv


class Reaper:
    """The supervisor's end of the pipe: a context manager around everything that needs cleaning up."""

    def __init__(self, run_dir: Path) -> None:
        self._argv = module_argv("servers.processes.reaper", str(run_dir))
        self._groups: set[int] = set()
        self._process = self._start()

    def __enter__(self) -> "Reaper":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def track(self, group_id: int) -> None:
        """End this process group when the supervisor is gone."""
        self._groups.add(group_id)
        self._send(f"+{group_id}")

    def forget(self, group_id: int) -> None:
        """Take a group that has ended off the list; its number may soon belong to another group."""
        self._groups.discard(group_id)
        self._send(f"-{group_id}")

    def _start(self) -> "subprocess.Popen[str]":
        # A session of its own, so that a terminal's Ctrl-C does not reach it.
        return subprocess.Popen(self._argv, stdin=subprocess.PIPE, text=True, bufsize=1, start_new_session=True)

    def _send(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{line}\n")
        except BrokenPipeError:  # the reaper was killed
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
            self._process.wait()
            self._process = self._start()
            for group_id in self._groups:
                self._send(f"+{group_id}")


def main() -> None:
    """Read the pipe until it closes, then clean up."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    run_dir = Path(sys.argv[1])
    groups: set[int] = set()
    for line in sys.stdin:
        signed_id = int(line)
        if signed_id > 0:
            groups.add(signed_id)
        else:
            groups.discard(-signed_id)
    for group_id in groups:
        ProcessGroup(group_id).kill()
    shutil.rmtree(run_dir, ignore_errors=True)


if __name__ == "__main__":
    main()
