"""A terminal in which a program runs as for a person: keys are typed, and what the screen shows is waited for."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

from tests.conftest import LITPORT, REPOSITORY

CTRL_C, CTRL_D, CTRL_U, UP = "\x03", "\x04", "\x15", "\x1b[A"

# Ctrl-C reaches a process through its controlling terminal.
_IN_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
)
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


class Terminal:
    """The process; `output` is all that it has written, `before` how the terminal was set when it began."""

    def __init__(self, argv: Sequence[str], columns: int) -> None:
        self._ours, self._theirs = pty.openpty()  # both stay open, so that the modes can be read in the end
        fcntl.ioctl(self._theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.before = self.modes()
        environ = {**os.environ, "TERM": "xterm-256color"}
        environ.pop("COLUMNS", None)
        self.process = subprocess.Popen(
            [sys.executable, "-c", _IN_TERMINAL, *argv],
            cwd=REPOSITORY,
            env=environ,
            stdin=self._theirs,
            stdout=self._theirs,
            stderr=self._theirs,
            start_new_session=True,
        )
        self.output = ""
        self._read_to = 0

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._ours, keys.encode())

    def press(self, key: str, pattern: str) -> None:
        """Press a key until what comes matches: CPython's input() misses a signal just before it waits for a key."""
        for attempt in range(10):
            self.type(key)
            with suppress(AssertionError) if attempt < 9 else nullcontext():
                self.wait(pattern, 2)
                return

    def wait(self, pattern: str, timeout_s: float = 20) -> str:
        """Wait until what comes after the last `wait` matches; the text up to the match's end, without colours."""
        deadline = time.monotonic() + timeout_s
        while not (match := re.search(pattern, text := _CONTROL.sub("", self.output)[self._read_to :])):
            assert time.monotonic() < deadline, f"expected {pattern}, got {text!r}"
            self._read(0.1)
        self._read_to += match.end()
        return text[: match.end()]

    def end(self) -> int:
        """The exit status of a process that ends by itself."""
        deadline = time.monotonic() + 20
        while self.process.poll() is None:
            assert time.monotonic() < deadline, self.output
            self._read(0.1)
        self._read(0.1)
        return self.process.returncode

    def modes(self) -> list[Any]:
        """How the terminal is set now."""
        return termios.tcgetattr(self._theirs)

    def close(self) -> None:
        """End the process; one that has processes of its own ends them."""
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(20)
        self.process.kill()
        self.process.wait()
        os.close(self._ours)
        os.close(self._theirs)

    def _read(self, timeout_s: float) -> None:
        while select.select([self._ours], [], [], timeout_s)[0]:
            self.output += os.read(self._ours, 65536).decode(errors="replace")
            timeout_s = 0


@contextmanager
def terminal(*arguments: str, columns: int = 80, program: Sequence[str] = LITPORT) -> Iterator[Terminal]:
    """Run `litport`, or another program, in a terminal until the block ends."""
    opened = Terminal([*program, *arguments], columns)
    try:
        yield opened
    finally:
        opened.close()
