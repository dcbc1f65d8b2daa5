"""A request as a worker's end of the wire knows it, and the window that holds its answer back."""

import asyncio
import threading
from collections.abc import Callable, Sequence

from servers.engines.litserve.host import wire
from servers.engines.litserve.host.outlet import Outlet
from servers.engines.litserve.host.work import Work

JSON_HEADERS = (("content-type", "application/json"),)
# Of all windows: only the API's thread ever waits.
_room = threading.Condition()


class Ticket:
    """A request as the wire knows it. `window` holds its answer back while the client is slow."""

    def __init__(self, request: wire.Request, outlet: Outlet, close: Callable[[int], object]) -> None:
        self.request = request
        self.outlet = outlet
        self.works: list[Work] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.is_cancelled = False
        self.window = Window()
        self.is_over = False
        self._close = close
        self._end: asyncio.Future[None] | None = None

    def reply(
        self,
        kind: wire.Kind,
        body: bytes = b"",
        status: int = 200,
        headers: Sequence[tuple[str, str]] = (),
        failure: str | None = None,
        *,
        is_worked: bool = False,
    ) -> tuple[wire.Reply, bytes]:
        """The reply, and the bytes of its body. `is_worked`: the API's code is done, whatever is still to be sent."""
        is_last = kind in (wire.Kind.WHOLE, wire.Kind.END)
        times, batch_size, is_retried = None, 0, False
        if is_last:
            self.is_over = True
            self._close(self.request.id)
            if self._end is not None:
                self._end.get_loop().call_soon_threadsafe(self._end.set_result, None)
        if self.works and (is_last or is_worked):
            work = self.works[0]
            times, batch_size, is_retried = work.times, work.batch_size, work.is_retried
            self.works = []  # each refers to this ticket: a cycle only the collector would free
        number, size = self.request.id, len(body)
        return wire.Reply(number, kind, size, status, headers, times, batch_size, failure, is_retried), body

    async def wait_for_end(self) -> None:
        """On the loop, once: until the last of the answer is sent."""
        self._end = asyncio.get_running_loop().create_future()
        if not self.is_over:
            await self._end

    def add(self, work: Work) -> None:
        """Have the work cancelled with the request, which may be so already."""
        work.is_cancelled = self.is_cancelled
        self.works.append(work)

    def attach(self, task: "asyncio.Task[None]") -> None:
        """Have the task cancelled with the request, which may be so already."""
        self._tasks.append(task)
        if self.is_cancelled:
            _cancel(task)

    def cancel(self) -> None:
        """Nobody waits for the answer any more. The front door still hears when the work is left."""
        self.is_cancelled = True
        for work in self.works:
            work.is_cancelled = True
        self.window.close()
        for task in self._tasks:
            _cancel(task)


def _cancel(task: "asyncio.Task[None]") -> None:
    # A task that is cancelled before its first step never takes it, and so never says that it has ended.
    task.get_loop().call_soon(task.cancel)


class Window:
    """How many bytes of an answer may still be sent before the front door has passed some on."""

    def __init__(self) -> None:
        self._free = wire.WINDOW_BYTES
        self._is_closed = False
        self._waiter: asyncio.Future[None] | None = None

    @property
    def has_room(self) -> bool:
        """Whether `take` would not block."""
        return self._free > 0

    def take(self, size: int) -> None:
        """Block while there is no room, and take it."""
        if self._free <= 0:
            with _room:
                _room.wait_for(lambda: self._free > 0 or self._is_closed)
        self._free -= size

    async def take_on_loop(self, size: int) -> None:
        """The same on the loop."""
        while self._free <= 0 and not self._is_closed:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        self._free -= size

    def grant(self, size: int) -> None:
        """There is room again; called on the loop."""
        with _room:
            self._free += size
            _room.notify_all()
        self._wake()

    def close(self) -> None:
        """Nothing waits for room any more; called on the loop."""
        with _room:
            self._is_closed = True
            _room.notify_all()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
