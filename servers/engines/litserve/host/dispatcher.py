"""The front door's way to a model's workers: waiting requests in order, made into batches for whoever is free.

All waiting requests are known here, so a batch is whatever waits when a worker becomes free: a request alone waits for
nobody, and a busy model's batches fill by themselves. With a batch timeout an idle worker waits that long for company.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from servers.engines.litserve.host.answer import HostRequest, HostResponse, NoWorkerError, QueueTimeoutError, Totals
from servers.engines.litserve.host.entry import Entry
from servers.engines.litserve.host.link import Link

# A worker gets so much work ahead that it need not wait for the way there and back.
_AHEAD_S = 0.001
_MOST_AHEAD = 8
# With several workers what one is given ahead would wait for it alone, so only quick ones get some.
_QUICK_S = 0.002
_ASYNC_RUNNING = 256


class Dispatcher:
    """Sends requests to the workers that listen on `sockets`.

    `batch_timeout_s` None makes batches of whatever waits; `cancel_grace_s` is how long a worker may go on with work
    that nobody waits for before it is killed, and so replaced.
    """

    def __init__(
        self, sockets: Sequence[Path], batch_timeout_s: float | None = None, cancel_grace_s: float = 5.0
    ) -> None:
        self._links = [Link(path, self._schedule, self._requeue) for path in sockets]
        self.totals = Totals()
        for link in self._links:
            link.cancel_grace_s, link.totals = cancel_grace_s, self.totals
        self._batch_timeout_s = batch_timeout_s
        self._waiting: deque[Entry] = deque()
        self._next = 0
        self._is_scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._keeping: list[asyncio.Task[None]] = []
        self._is_gone = False

    @property
    def waiting(self) -> int:
        """How many requests no worker has yet."""
        return len(self._waiting)

    @property
    def deaths(self) -> int:
        """How many workers have ended so far."""
        return sum(link.deaths for link in self._links)

    def pids(self) -> list[int]:
        """The workers that are ready."""
        return [link.pid for link in self._links if link.is_ready]

    async def start(self) -> None:
        """Connect, and wait until every worker is set up. Raises NoWorkerError when the host ends instead."""
        loop = asyncio.get_running_loop()
        self._keeping = [loop.create_task(self._keep(link)) for link in self._links]
        everyone = loop.create_task(self._greeted())
        try:
            await asyncio.wait([everyone, *self._keeping], return_when=asyncio.FIRST_COMPLETED)
            if not everyone.done():
                raise NoWorkerError("the model's processes ended")
        finally:
            everyone.cancel()
            await asyncio.gather(everyone, return_exceptions=True)

    async def close(self) -> None:
        """Leave the workers. What waits fails with NoWorkerError."""
        self._give_up()
        for task in self._keeping:
            task.cancel()
        await asyncio.gather(*self._keeping, return_exceptions=True)
        for link in self._links:
            link.close()
        await asyncio.sleep(0)

    async def send(self, request: HostRequest) -> HostResponse:
        """The answer. Raises DispatchError. Cancelling it drops the request, or interrupts the work on it."""
        if self._is_gone:
            raise NoWorkerError("the model's processes are gone")
        self._next += 1
        entry = Entry(self._next, request, asyncio.get_running_loop().create_future())
        self._waiting.append(entry)
        self._schedule()
        try:
            return await entry.future
        except asyncio.CancelledError:
            entry.is_cancelled = True
            if entry.link is None:
                self._waiting.remove(entry)
            else:
                entry.link.cancel(entry)
            raise

    async def ping(self) -> bool:
        """Whether every worker answers and says that it is healthy. A worker that is stuck answers nothing."""
        return all(await asyncio.gather(*(link.ping() for link in self._links)))

    async def _greeted(self) -> None:
        for link in self._links:
            await link.greeted.wait()

    async def _keep(self, link: Link) -> None:
        try:
            await link.keep()
        except OSError:  # nobody listens any more
            self._give_up()

    def _give_up(self) -> None:
        self._is_gone = True
        while self._waiting:
            self._waiting.popleft().fail(NoWorkerError("the model's processes are gone"))

    def _requeue(self, entries: list[Entry]) -> None:
        for entry in reversed(entries):
            entry.link = None
            self._waiting.appendleft(entry)

    def _schedule(self) -> None:
        # Once the loop has come round, so that all requests that came at once are seen together.
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._dispatch)

    def _dispatch(self) -> None:
        self._is_scheduled = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._drop_late()
        while self._waiting and (link := self._free()) is not None:
            if not self._give(link):
                return

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
                    self._timer = asyncio.get_running_loop().call_later(left_s, self._schedule)
                    return False
        link.send([[waiting.popleft() for _ in range(min(size, len(waiting)))]])
        return True

    def _free(self) -> Link | None:
        ready = [link for link in self._links if link.is_ready and self._room(link) > 0]
        return min(ready, key=_load, default=None)

    def _room(self, link: Link) -> int:
        """How many more batches it may be given."""
        in_hand = len(link.batches)
        if link.is_async:
            return _ASYNC_RUNNING - in_hand
        is_only = len(self._links) == 1
        ahead = 1 if is_only else 0
        if link.service_s is not None and link.service_s < _QUICK_S:
            ahead += min(_MOST_AHEAD, math.ceil(_AHEAD_S / max(link.service_s, 1e-6)))
        return 1 + ahead - in_hand

    def _drop_late(self) -> None:
        now_s = time.monotonic()
        waiting = self._waiting
        while waiting and (waiting[0].request.deadline_s or math.inf) < now_s:
            waiting.popleft().fail(QueueTimeoutError("no worker was free before the deadline"))


def _load(link: Link) -> int:
    return len(link.batches)
