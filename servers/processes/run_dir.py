"""The folder of a platform's sockets, where their paths are short enough.

The path of a Unix socket has at most 107 bytes (unix(7)). The models' processes put sockets of their own into TMPDIR:
multiprocessing's lie 32 bytes below it, vLLM's 37. So where TMPDIR is long, they get the folder as theirs.
"""

import logging
import os
import tempfile
from pathlib import Path

from configs.errors import UserError

_log = logging.getLogger("litport.platform")

_SOCKET_PATH_BYTES = 107
# What comes below the folder at most: its own name (17) or theirs, and some room.
_BELOW_BYTES = 45
_SHORT_DIRS = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 # the folder made there is private


def make_run_dir() -> Path:
    """A new folder that only this user can read. Raises UserError where none can be made.

    Sets TMPDIR for the processes to come where it is too long for their sockets.
    """
    try:
        default = tempfile.gettempdir()
        if _fits(default):
            return Path(tempfile.mkdtemp(prefix="litport-"))
        for parent in filter(_is_writable, (os.environ.get("XDG_RUNTIME_DIR", ""), *_SHORT_DIRS)):
            folder = Path(tempfile.mkdtemp(prefix="litport-", dir=parent))
            _log.warning("TMPDIR is too long for Unix sockets (%s); they are in %s", default, folder)
            os.environ["TMPDIR"] = str(folder)
            return folder
    except OSError as problem:
        raise UserError(f"no folder for the models' sockets can be made: {problem}; set TMPDIR to one") from None
    most = _SOCKET_PATH_BYTES - _BELOW_BYTES
    raise UserError(f"TMPDIR: expected a path of at most {most} bytes, for Unix sockets below it, got {default}")


def _fits(folder: str) -> bool:
    return len(os.fsencode(folder)) <= _SOCKET_PATH_BYTES - _BELOW_BYTES


def _is_writable(folder: str) -> bool:
    return folder != "" and _fits(folder) and os.access(folder, os.W_OK | os.X_OK)
