"""A command that a pull runs, such as pip.

On Linux the child dies with its parent, even when that is killed (elsewhere only on an ordinary exit of the parent). A
download that lives longer would write into a folder that the next pull uses.
"""

import ctypes
import errno
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence

from servers.store.progress import TICK_S

# Pip writes this warning when it tries again; its final error says only that there is no such version.
_BROKEN_CONNECTION = re.compile(r"after connection broken by '(\w+)")
_CAUSE = re.compile(r"[\w.]*(Error|Exception)\w*: .")
_PR_SET_PDEATHSIG = 1  # prctl(2)
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


class ChildError(Exception):
    """The child ended with a status other than 0; the text is the most useful line of its standard error."""


def run(
    argv: Sequence[str],
    *,
    environment: Mapping[str, str],
    on_tick: Callable[[], None],
) -> None:
    """Run to the end and call `on_tick` every `TICK_S`. Raises ChildError, and OSError when the disk is full."""
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            argv,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            preexec_fn=_die_with_parent,
        )
        try:
            while _still_running(process):
                on_tick()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        if process.returncode != 0:
            errors.seek(0)
            text = errors.read().decode(errors="replace")
            if (full := os.strerror(errno.ENOSPC)) in text:
                raise OSError(errno.ENOSPC, full)
            raise ChildError(_error_line(text, process.returncode))


def _still_running(process: "subprocess.Popen[bytes]") -> bool:
    try:
        process.wait(TICK_S)
    except subprocess.TimeoutExpired:
        return True
    return False


def _die_with_parent() -> None:
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _error_line(text: str, status: int) -> str:
    if broken := _BROKEN_CONNECTION.search(text):
        return f"its index is not reachable: {broken[1]}"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]  # as pip writes them
    if errors:
        return errors[0]
    causes = [line for line in lines if _CAUSE.match(line)]  # more may follow it
    return (causes or lines or [f"ended with status {status}"])[-1]
