"""The front door's way to a model's workers: waiting requests in order, made into batches for whoever is free.

All waiting requests are known here, so a batch is whatever waits when a worker becomes free: a request alone waits for
nobody, and a busy model's batches fill by themselves. With a batch timeout an idle worker waits that long for company.
"""

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from servers.engines.litserve.host.answer import (
    HostRequest,
    HostResponse,
    NoWorkerError,
    Policy,
    QueueTimeoutError,
    Totals,
)
from servers.engines.litserve.host.entry import Entry
from servers.engines.litserve.host.link import Link

# A worker gets so much work ahead that it need not wait for the way there and back.
_AHEAD_S = 0.001
_MOST_AHEAD = 8
# With several workers what one is given ahead would wait for it alone, so only quick ones get some.
_QUICK_S = 0.002
_ASYNC_RUNNING = 256


class Dispatcher:
    """Sends requests to the workers that listen on `sockets`. It is made and used on one loop.

    `is_gone` is whether the host has ended, or the dispatcher is closed.
    """

    def __init__(self, sockets: Sequence[Path], policy: Policy) -> None:
        self.totals = Totals()
        self._links = [Link(path, policy, self.totals, self._schedule, self._requeue) for path in sockets]
        self._batch_timeout_s = policy.batch_timeout_s
        self._waiting: deque[Entry] = deque()
        self._next = 0
        self._is_scheduled = False
        self._batch_timer: asyncio.TimerHandle | None = None
        self._deadline_timer: asyncio.TimerHandle | None = None
        self.is_gone = False
        self._loop = asyncio.get_running_loop()
        self._tasks = [self._loop.create_task(self._keep(link)) for link in self._links]

    @property
    def restarts(self) -> int:
        """How many workers were replaced so far."""
        return sum(link.restarts for link in self._links)

    @property
    def is_complete(self) -> bool:
        """Whether every worker is set up."""
        return all(link.is_ready for link in self._links)

    @property
    def is_at_rest(self) -> bool:
        """Whether a worker is ready and none works on anything."""
        return any(link.is_ready for link in self._links) and not any(link.batches for link in self._links)

    def pids(self) -> list[int]:
        """The workers that are ready."""
        return [link.pid for link in self._links if link.is_ready]

    async def close(self) -> None:
        """Leave the workers. What waits fails with NoWorkerError."""
        self._give_up()
        for timer in (self._batch_timer, self._deadline_timer):
            if timer is not None:
                timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for link in self._links:
            link.close()
        await asyncio.sleep(0)

    async def send(self, request: HostRequest) -> HostResponse:
        """The answer. Raises DispatchError. Cancelling it drops the request, or interrupts the work on it."""
        if self.is_gone:
            raise NoWorkerError("the model's processes are gone")
        self._next += 1
        entry = Entry(self._next, request, self._loop.create_future())
        self._waiting.append(entry)
        self._schedule()
        try:
            return await entry.future
        except asyncio.CancelledError:
            entry.is_cancelled = True
            if entry.link is None:
                with contextlib.suppress(ValueError):  # its deadline has just passed
                    self._waiting.remove(entry)
            else:
                entry.link.cancel(entry)
            raise

    async def ping(self) -> bool:
        """Whether all ready workers answer and are healthy; one that works is judged by its answers instead.

        One that does not answer is replaced by itself, and counts only where it was the last.
        """
        ready = [link for link in self._links if link.is_ready]
        answers = await asyncio.gather(*(link.ping() for link in ready if not link.batches))
        return False not in answers and (not answers or len(ready) > answers.count(None))

    async def _keep(self, link: Link) -> None:
        try:
            await link.keep()
        except OSError:  # nobody listens any more
            self._give_up()

    def _give_up(self) -> None:
        self.is_gone = True
        while self._waiting:
            self._waiting.popleft().fail(NoWorkerError("the model's processes are gone"))

    def _requeue(self, entries: list[Entry]) -> None:
        for entry in reversed(entries):
            entry.link = None
            if self.is_gone:
                entry.fail(NoWorkerError("the model's processes are gone"))
            else:
                self._waiting.appendleft(entry)

    def _schedule(self) -> None:
        # Once the loop has come round, so that all requests that came at once are seen together. Nothing follows from a
        # change while nothing waits and no worker leaves.
        if not self._is_scheduled and (self._waiting or any(link.leaving_s is not None for link in self._links)):
            self._is_scheduled = True
            self._loop.call_soon(self._dispatch)

    def _dispatch(self) -> None:
        self._is_scheduled = False
        if self._batch_timer is not None:
            self._batch_timer.cancel()
            self._batch_timer = None
        self._drop_late()
        while self._waiting and (link := self._free()) is not None:
            if not self._give(link):
                break
        self._release()
        self._set_deadline_timer()

    def _give(self, link: Link) -> bool:
        """Send what is due to this worker; False when it must wait for more."""
        waiting, size = self._waiting, link.batch_size
        if size == 1:
            count = min(len(waiting), self._room(link))
            link.send([(waiting.popleft(),) for _ in range(count)])
            return True
        if len(waiting) < size:
            if link.batches:
                return False
            if self._batch_timeout_s is not None:
                left_s = waiting[0].queued_s + self._batch_timeout_s - time.monotonic()
                if left_s > 0:
                    self._batch_timer = self._loop.call_later(left_s, self._schedule)
                    return False
        link.send([[waiting.popleft() for _ in range(min(size, len(waiting)))]])
        return True

    def _free(self) -> Link | None:
        ready = [link for link in self._links if link.is_ready and self._room(link) > 0]
        staying = [link for link in ready if link.leaving_s is None]
        return min(staying or filter(self._is_due, ready), key=_load, default=None)

    def _is_due(self, link: Link) -> bool:
        """Whether a worker that leaves must still take what waits: it has waited since before."""
        return bool(self._waiting) and link.leaving_s is not None and self._waiting[0].queued_s < link.leaving_s

    def _release(self) -> None:
        """Let the workers go that were told to end, unless requests wait that no other could take."""
        has_other = any(link.is_ready and link.leaving_s is None for link in self._links)
        for link in self._links:
            if link.leaving_s is not None and (has_other or not self._is_due(link)):
                link.release()

    def _room(self, link: Link) -> int:
        """How many more batches it may be given."""
        running = len(link.batches)
        if link.is_async:
            return _ASYNC_RUNNING - running
        is_only = len(self._links) == 1
        ahead = 1 if is_only else 0
        if link.service_s is not None and link.service_s < _QUICK_S:
            ahead += min(_MOST_AHEAD, math.ceil(_AHEAD_S / max(link.service_s, 1e-6)))
        return 1 + ahead - running

    def _drop_late(self) -> None:
        now_s = time.monotonic()
        waiting = self._waiting
        while waiting and (waiting[0].request.deadline_s or math.inf) < now_s:
            waiting.popleft().fail(QueueTimeoutError("no worker was free before the deadline"))

    def _set_deadline_timer(self) -> None:
        """One timer for the oldest request, and not one for each; a request that is served leaves it as it is."""
        if self._deadline_timer is None and self._waiting and (deadline_s := self._waiting[0].request.deadline_s):
            delay_s = max(0.0, deadline_s - time.monotonic())
            self._deadline_timer = self._loop.call_later(delay_s, self._on_deadline)

    def _on_deadline(self) -> None:
        self._deadline_timer = None
        self._schedule()


def _load(link: Link) -> int:
    return len(link.batches)
