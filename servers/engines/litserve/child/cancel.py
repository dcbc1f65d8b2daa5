"""Work that nobody waits for is not done: LitServe alone predicts to the end for a client that has left.

An API server marks a request whose client left before its answer was whole. A worker drops marked requests as it takes
them from the queue, and says what it has in hand (`litserve_hand`). The main process watches: once all of that is
marked it signals the worker, and ends one whose work goes on for the grace all the same. A worker could not do so
itself, since native code can keep every thread of it from running. It never decides where work may be left: that is
the worker's part.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

INTERRUPT = signal.SIGRTMIN + 1
"""Tells a worker that all it has in hand is cancelled. No library uses this one, as some do SIGUSR1."""

# Most requests are answered sooner, and cost no task that listens whether their client is still there.
_UNHURRIED_S = 0.25
_LOOK_EVERY_S = 0.2

queued_as: ContextVar[list[str] | None] = ContextVar("queued_as", default=None)
"""The ids under which the POST that is being handled has been queued."""


class Marks:
    """The ids of the cancelled requests, for all processes of a child: empty files in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def clear(self) -> None:
        """Begin with none."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir()

    def add(self, uid: str) -> None:
        """The client has left."""
        (self._folder / uid).touch()

    def remove(self, uid: str) -> None:
        """The request is over; it need not have been marked."""
        (self._folder / uid).unlink(missing_ok=True)

    def has(self, uid: str) -> bool:
        """Whether this request is cancelled."""
        return (self._folder / uid).exists()

    def all(self) -> set[str]:
        """All that are cancelled and not over."""
        return {file.name for file in self._folder.iterdir()}


class Watch(threading.Thread):
    """In the main process: tells workers that their work is cancelled, and ends those that go on for `grace_s`.

    `slots` are where they say what they have in hand, and `queued_s` is the longest that a request can be in the queue.
    """

    def __init__(
        self, marks: Marks, slots: Sequence[Any], workers: Sequence[Any], grace_s: float, queued_s: float
    ) -> None:
        super().__init__(name="cancel-watch", daemon=True)
        self._marks = marks
        self._slots = slots
        self._workers = workers
        self._grace_s = grace_s
        self._queued_s = queued_s
        self._since_s: dict[str, float] = {}
        self._held: set[str] = set()

    def run(self) -> None:
        """Look until a worker had to be ended: that is the end of the child."""
        while not self._look():
            time.sleep(_LOOK_EVERY_S)

    def _look(self) -> bool:
        marked, now_s = self._marks.all(), time.monotonic()
        self._since_s = {uid: self._since_s.get(uid, now_s) for uid in marked}
        held: set[str] = set()
        for slot, worker in zip(self._slots, self._workers, strict=False):  # no slots: no interrupting
            uids = slot.value.decode().split()
            held.update(uids)
            if uids and marked.issuperset(uids) and worker.is_alive():
                if now_s - max(self._since_s[uid] for uid in uids) > self._grace_s:
                    self._end(worker)
                    return True
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker.pid, INTERRUPT)
        # Over, unless the queue said so: what a worker had in hand, or what was over already when it was marked.
        for uid in marked - held:
            if uid in self._held or now_s - self._since_s[uid] > self._queued_s + self._grace_s:
                self._marks.remove(uid)
        self._held = held
        return False

    def _end(self, worker: Any) -> None:
        sys.stderr.write(
            f"litserve_main: error: work went on for {self._grace_s:g} s after its request was cancelled; its worker "
            "is replaced\n"
        )
        sys.stderr.flush()
        time.sleep(_LOOK_EVERY_S)  # so that whoever sees the death has read why
        worker.kill()


Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


class HttpCancel:
    """ASGI middleware: marks what a POST has queued when its client leaves before the answer is whole."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], marks: Marks) -> None:
        self._app = app
        self._marks = marks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(self._marks, receive, send)
        queued_as.set(exchange.uids)
        try:
            await self._app(scope, receive, exchange.send)
        finally:
            exchange.close()


class _Exchange:
    """One request and its answer."""

    def __init__(self, marks: Marks, receive: Receive, send: Send) -> None:
        self.uids: list[str] = []
        self._marks = marks
        self._receive = receive
        self._send = send
        self._is_whole = False
        self._is_marked = False
        self._listening: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(_UNHURRIED_S, self._listen)

    async def send(self, message: Any) -> None:
        """Pass a piece of the answer on."""
        if message["type"] == "http.response.body" and not message.get("more_body"):
            self._is_whole = True
        await self._send(message)

    def close(self) -> None:
        """The handler is done: with an answer, or because there is nobody to send it to."""
        self._timer.cancel()
        if self._listening is not None:
            self._listening.cancel()
        if not self._is_whole:
            self._mark()
        elif self._is_marked:
            for uid in self.uids:
                self._marks.remove(uid)

    def _listen(self) -> None:
        if self.uids:
            self._listening = self._loop.create_task(self._until_left())
        else:  # the body is still coming, and the handler must be the one that gets it
            self._timer = self._loop.call_later(_UNHURRIED_S, self._listen)

    async def _until_left(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if not self._is_whole:
            self._mark()

    def _mark(self) -> None:
        if not self._is_marked:
            self._is_marked = True
            for uid in self.uids:
                self._marks.add(uid)
