"""Who listens on a port of this machine: a platform by its own answer, else a process by /proc.

The command line uses this module too, so it imports only the standard library.
"""

import http.client
import json
import os
from pathlib import Path
from typing import Any

from servers.processes.proc import PROC, read_text

_TIMEOUT_S = 0.5
_LISTEN = "0A"  # TCP_LISTEN of Linux's include/net/tcp_states.h


def describe_holder(host: str, port: int) -> str | None:
    """The holder in words, such as "process 71 (nginx)"; None where nothing is known of it.

    A process of another user stays unknown.
    """
    pid = _pid(port)
    process = f"process {pid}" if pid else None
    if platform := describe_platform(host, port):
        return f"{platform}, {process}" if process else platform
    return f"{process} ({_program(pid)})" if pid else None


def describe_platform(host: str, port: int) -> str | None:
    """The platform that answers at the address, with its models; None where another server does, or none."""
    readiness = _get(host, port, "/ready")
    if not isinstance(readiness, dict) or not isinstance(models := readiness.get("models"), dict):
        return None
    status = _get(host, port, "/status")  # has the version; not without a key where there are keys
    version = status.get("version") if isinstance(status, dict) else None
    name = f"Litport {version}" if version else "Litport"
    return f"{name} with {', '.join(models)}" if models else name


def _get(host: str, port: int, path: str) -> Any:
    """The JSON document at a path, whatever the status; None where there is none."""
    connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", path)
        return json.loads(connection.getresponse().read(2**20))
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()


def _pid(port: int) -> int | None:
    """The oldest process of this user that listens on the port."""
    sockets = {f"socket:[{inode}]" for table in ("tcp", "tcp6") for inode in _inodes(PROC / "net" / table, port)}
    pids = sorted(int(name) for name in os.listdir(PROC) if name.isdigit()) if sockets else []  # noqa: PTH208
    return next((pid for pid in pids if _has_any(PROC / str(pid) / "fd", sockets)), None)


def _program(pid: int) -> str:
    """The name of a process's program; of Python's the script or module that it runs."""
    command, *arguments = read_text(PROC / str(pid) / "cmdline").split("\0")
    if Path(command).name.startswith("python") and arguments[:1] != ["-c"]:
        return next(Path(argument).name for argument in (*arguments, command) if not argument.startswith("-"))
    return read_text(PROC / str(pid) / "comm").strip()


def _inodes(table: Path, port: int) -> list[str]:
    """The sockets that listen on the port, by the kernel's table (proc_pid_net(5))."""
    try:
        rows = [line.split() for line in table.read_text().splitlines()[1:]]
    except OSError:
        return []
    return [row[9] for row in rows if row[3] == _LISTEN and int(row[1].rpartition(":")[2], 16) == port]


def _has_any(descriptors: Path, sockets: set[str]) -> bool:
    try:
        links = list(descriptors.iterdir())
    except OSError:  # another user's process, or one that has ended
        return False
    return any(_target(link) in sockets for link in links)


def _target(link: Path) -> str | None:
    try:
        return str(link.readlink())
    except OSError:  # closed in the meantime
        return None
