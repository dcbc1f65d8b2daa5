"""The Unix socket of a platform for the commands of its own user, found by the platform's port.

It lies in a folder that only this user can enter: `litport` below $XDG_RUNTIME_DIR or /run/user/UID, else
/tmp/litport-UID. The server and the commands may have different environments, so the commands look in all of them.
"""

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

_LONGEST_PATH_BYTES = 100  # 107 by unix(7), and room for the suffix of a process id


def find(port: int) -> Path | None:
    """The socket of the platform on this port; None where no platform of this user answers there."""
    return next((path for path in _paths(port) if _is_private(path.parent) and _answers(path)), None)


def bind(port: int) -> tuple[socket.socket, Path]:
    """A listening socket for the platform on this port, and its path; those of ended platforms beside it are removed.

    Raises OSError where no folder can hold it, FileExistsError where another platform of this user has the port on
    another address.
    """
    problem: OSError = OSError("no private folder can be made for it")
    for path in _paths(port):
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            if not _is_private(path.parent):
                continue
            for old in path.parent.glob("*.sock"):
                if not _answers(old):
                    old.unlink(missing_ok=True)
            if path.exists():
                raise FileExistsError(f"{path} is another platform's")
            return _listen(path), path
        except FileExistsError:
            raise
        except OSError as error:
            problem = error
    raise problem


def _listen(path: Path) -> socket.socket:
    """A socket that has its name once it answers, so that nobody takes it for one of an ended platform."""
    temporary = path.with_suffix(f".{os.getpid()}")
    temporary.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(str(temporary))
        temporary.chmod(0o600)
        listener.listen()
        temporary.rename(path)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def _paths(port: int) -> Iterator[Path]:
    parents = [Path(f"/run/user/{os.getuid()}")]
    if directory := os.environ.get("XDG_RUNTIME_DIR"):
        parents.insert(0, Path(directory))
    folders = [*(parent / "litport" for parent in parents), Path(f"/tmp/litport-{os.getuid()}")]  # noqa: S108 # private
    for folder in folders:
        path = folder / f"{port}.sock"
        if len(os.fsencode(path)) <= _LONGEST_PATH_BYTES:
            yield path


def _is_private(folder: Path) -> bool:
    with contextlib.suppress(OSError):
        status = folder.lstat()
        return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o077
    return False


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client, contextlib.suppress(OSError):
        client.settimeout(1)
        client.connect(str(path))
        return True
    return False
