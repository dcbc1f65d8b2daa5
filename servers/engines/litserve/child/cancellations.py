"""Requests whose client has left: LitServe alone would predict them to the end.

An API server cancels a request whose client leaves before its answer is whole. A worker drops cancelled requests as it
takes them from the queue, and publishes the ids of those in flight (`in_flight`). The main process watches: once all of
a worker's requests are cancelled, it signals the worker, and kills it if it goes on for the grace. A worker could not
watch itself, since native code can keep all of its threads from running.
"""

import contextlib
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from litserve.utils import PickleableHTTPException

INTERRUPT = signal.SIGRTMIN + 1
"""Tells a worker that all of its requests are cancelled. No library uses this signal, as some do SIGUSR1."""

_POLL_S = 0.2


class Cancelled(PickleableHTTPException):  # type: ignore[misc] # LitServe ships no types
    """Answers a cancelled request, and leaves an API's code. LitServe logs no HTTPException."""

    def __init__(self) -> None:
        super().__init__(499, "cancelled")


class Cancellations:
    """The LitServe ids of the cancelled requests, for all processes of a child: empty files in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def clear(self) -> None:
        """Begin with none."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir()

    def add(self, uid: str) -> None:
        """Cancel a request."""
        (self._folder / uid).touch()

    def remove(self, uid: str) -> None:
        """Forget a request that is over; it need not have been cancelled."""
        (self._folder / uid).unlink(missing_ok=True)

    def has(self, uid: str) -> bool:
        """Whether this request is cancelled."""
        return (self._folder / uid).exists()

    def uids(self) -> set[str]:
        """All that are cancelled and not over."""
        return {file.name for file in self._folder.iterdir()}


class Watch(threading.Thread):
    """In the main process: interrupts workers whose requests are all cancelled, and kills those that go on.

    `slots` are where the workers publish what they have in flight (empty if they must not be interrupted); `grace_s` is
    how long a worker may go on; `queued_s` is the longest that a request can be in the queue.
    """

    def __init__(
        self, cancellations: Cancellations, slots: list[Any], workers: list[Any], grace_s: float, queued_s: float
    ) -> None:
        super().__init__(name="cancel-watch", daemon=True)
        self._cancellations = cancellations
        self._slots = slots
        self._workers = workers
        self._grace_s = grace_s
        self._queued_s = queued_s
        self._since_s: dict[str, float] = {}
        self._in_flight: set[str] = set()

    def run(self) -> None:
        """Look until a worker had to be killed: that is the end of the child."""
        while not self._look():
            time.sleep(_POLL_S)

    def _look(self) -> bool:
        cancelled, now_s = self._cancellations.uids(), time.monotonic()
        self._since_s = {uid: self._since_s.get(uid, now_s) for uid in cancelled}
        in_flight: set[str] = set()
        for slot, worker in zip(self._slots, self._workers, strict=False):
            uids = slot.value.decode().split()
            in_flight.update(uids)
            if uids and cancelled.issuperset(uids) and worker.is_alive():
                if now_s - max(self._since_s[uid] for uid in uids) > self._grace_s:
                    self._kill(worker)
                    return True
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker.pid, INTERRUPT)
        # The queue forgets those that it drops. These were in flight, or were over already when they were cancelled.
        for uid in cancelled - in_flight:
            if uid in self._in_flight or now_s - self._since_s[uid] > self._queued_s + self._grace_s:
                self._cancellations.remove(uid)
        self._in_flight = in_flight
        return False

    def _kill(self, worker: Any) -> None:
        sys.stderr.write(
            f"litserve_main: error: work went on for {self._grace_s:g} s after its request was cancelled; its worker "
            "is replaced\n"
        )
        sys.stderr.flush()
        time.sleep(_POLL_S)  # so that whoever sees the death has read why
        worker.kill()
