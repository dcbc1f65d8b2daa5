"""Work in progress is left when nobody waits for it: a signal raises `Cancelled` in the API's code, and nowhere else.

The thread that reads the socket learns that a request is cancelled; the main thread runs the API. Once all requests of
its batch are cancelled, the signal is sent to the main thread, again each second, as code that caught the exception may
be clearing up. A worker whose native code lets no signal through is ended by the front door.
"""

import signal
import threading
import time
from collections.abc import Sequence
from types import FrameType

from servers.engines.litserve.host.work import Work

INTERRUPT = signal.SIGRTMIN + 1
"""No library uses this one, as some do SIGUSR1."""

AGAIN_S = 1.0


class Cancelled(BaseException):
    """Raised in an API's code when nobody waits for its answer; no `except Exception` catches it."""


class Execution:
    """What the main thread works on. `is_interruptible` is whether the signal may raise: the API's code runs."""

    def __init__(self) -> None:
        self.works: Sequence[Work] = ()
        self.is_interruptible = False
        self._thread = 0
        self._raised_s = 0.0

    def install(self) -> None:
        """Take the signal; called in the main thread."""
        self._thread = threading.main_thread().ident or 0
        signal.signal(INTERRUPT, self._interrupt)

    @property
    def is_cancelled(self) -> bool:
        """Whether nobody waits for any of it."""
        return bool(self.works) and all(work.is_cancelled or work.is_over for work in self.works)

    def check(self) -> None:
        """Between two calls of the API: leave the work if nobody waits for it."""
        if self.is_cancelled:
            raise Cancelled

    def interrupt(self) -> bool:
        """From another thread: signal the main thread if it works for nobody; whether it did."""
        if not self.is_cancelled:
            return False
        signal.pthread_kill(self._thread, INTERRUPT)
        return True

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        now_s = time.monotonic()
        if self.is_interruptible and self.is_cancelled and now_s - self._raised_s > AGAIN_S / 2:
            self._raised_s = now_s
            raise Cancelled
