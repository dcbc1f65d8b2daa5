"""A rung's own process tree: started, watched, ended as a group, its output in a file."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx

from servers.processes.group import ProcessGroup
from servers.processes.reaper import Reaper

_POLL_S = 0.1
_END_GRACE_S = 15.0
_LOG_LINES = 15


class RungError(Exception):
    """A rung could not be started or answered wrongly; the message names the rung and the reason."""


class ChildProcess:
    """A running process tree, led by `process`, with its output in `log_file`. `reaper` ends it if we are killed."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        environ: Mapping[str, str],
        log_file: Path,
        *,
        piped: bool = False,
        reaper: Reaper | None = None,
    ) -> None:
        self.name = name
        self._log_file = log_file
        pipe = subprocess.PIPE if piped else None
        with log_file.open("ab") as log:
            self.process = subprocess.Popen(
                argv,
                stdin=pipe or subprocess.DEVNULL,
                stdout=pipe or log,
                stderr=log,
                env={**_plain_environ(), **environ},
                start_new_session=True,
                text=piped,
                bufsize=1 if piped else -1,
            )
        self._reaper = reaper
        if reaper is not None:
            reaper.track(self.pid)

    @property
    def pid(self) -> int:
        """The leader's process id, and the group's."""
        return self.process.pid

    def wait_ready(self, url: str, timeout_s: float) -> None:
        """Return once `url` answers 200. Raises RungError when the process ends or the time is over."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RungError(
                    f"{self.name} ended with status {self.process.returncode} at start: {self.last_output()}"
                )
            try:
                if httpx.get(url, timeout=5, trust_env=False).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(_POLL_S)
        raise RungError(f"{self.name} was not ready within {timeout_s:g} s: {self.last_output()}")

    def last_output(self) -> str:
        """The last lines of its output."""
        lines = self._log_file.read_text(errors="replace").splitlines()
        return "\n".join(lines[-_LOG_LINES:])

    def end(self) -> None:
        """End the whole group."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(_END_GRACE_S)
        ProcessGroup(self.pid).kill()
        self.process.communicate()
        if self._reaper is not None:
            self._reaper.forget(self.pid)


def _plain_environ() -> dict[str, str]:
    # A rung reads its settings from its own recipe, so our variables must not change them.
    return {name: value for name, value in os.environ.items() if not name.startswith("LITPORT_")}


def free_port() -> int:
    """A port of loopback that was free just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
