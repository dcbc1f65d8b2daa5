"""Machines that are network namespaces on a bridge of this one: each has an address and processes of its own.

What runs in one can be killed or stopped as a whole, as if its machine lost power or froze. They share this machine's
files. Needs root, and the right to make namespaces.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.services.polling import wait_until

_SUBNET = "10.213.77"
BRIDGE_ADDRESS = f"{_SUBNET}.254"
_IP_TIMEOUT_S = 20


def problem() -> str | None:
    """Why no such machine can be made here, or None."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "there is no `ip` (iproute2)"
    name = f"lp-probe-{os.getpid()}"
    probe = _ip("netns", "add", name, check=False)
    if probe.returncode == 0:
        probe = _ip("netns", "exec", name, "true", check=False)
        _ip("netns", "delete", name)
    return None if probe.returncode == 0 else f"no network namespace can be made: {probe.stderr.strip()}"


class Machine:
    """A namespace with an address on the bridge, and a folder of its own."""

    def __init__(self, number: int, folder: Path, switch: str) -> None:
        self.name = f"{switch}-{number}"
        self.address = f"{_SUBNET}.{number}"
        self.folder = folder / self.name
        self.folder.mkdir()
        self._started: list[subprocess.Popen[bytes]] = []
        _ip("netns", "add", self.name)
        port = f"port{number}"
        _ip("-n", switch, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        _ip("-n", switch, "link", "set", port, "master", "bridge", "up")
        _ip("-n", self.name, "address", "add", f"{self.address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            _ip("-n", self.name, "link", "set", device, "up")

    def start(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        """Start the command on this machine; what it writes goes into a log in its folder."""
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                ["ip", "netns", "exec", self.name, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
            )
        self._started.append(process)

    @property
    def log(self) -> str:
        """What all commands on this machine have written."""
        file = self.folder / "log"
        return file.read_text(errors="replace") if file.exists() else ""

    @property
    def processes(self) -> list[int]:
        """The pids of all that runs here."""
        return [int(pid) for pid in _ip("netns", "pids", self.name, check=False).stdout.split()]

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all that runs here; SIGKILL until nothing does."""
        for pid in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        if number is signal.SIGKILL:
            wait_until(self._is_dead, problem=lambda: self.processes)

    def remove(self) -> None:
        """End all that runs here, and the namespace."""
        self.signal(signal.SIGKILL)
        for process in self._started:
            process.wait()
        _ip("netns", "delete", self.name)

    def _is_dead(self) -> bool:
        pids = self.processes
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not pids


@contextlib.contextmanager
def network(count: int, folder: Path) -> Iterator[list[Machine]]:
    """So many machines, and this one at BRIDGE_ADDRESS. All of it is gone at the end.

    The bridge between them is in a namespace of its own, where the firewall of this machine does not filter.
    """
    switch = f"lpb{os.getpid()}"
    with contextlib.ExitStack() as stack:
        _ip("netns", "add", switch)
        stack.callback(_ip, "netns", "delete", switch)
        _ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", switch, "link", "set", "bridge", "up")
        _ip("link", "add", switch, "type", "veth", "peer", "name", "port0", "netns", switch)
        stack.callback(_ip, "link", "delete", switch)
        _ip("-n", switch, "link", "set", "port0", "master", "bridge", "up")
        _ip("address", "add", f"{BRIDGE_ADDRESS}/24", "dev", switch)
        _ip("link", "set", switch, "up")
        machines = []
        for number in range(1, count + 1):
            machines.append(Machine(number, folder, switch))
            stack.callback(machines[-1].remove)
        yield machines


def _ip(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=_IP_TIMEOUT_S, check=False)
    assert not check or result.returncode == 0, f"ip {' '.join(arguments)}: {result.stderr}"
    return result
