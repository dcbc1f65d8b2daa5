"""The front door's end of one worker's socket: what the worker works on, and its replies as they come.

A worker that is replaced keeps its socket's path, so the link connects again and waits for the next Hello.
"""

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from servers.engines.litserve.host import wire
from servers.engines.litserve.host.answer import (
    BrokenAnswerError,
    HostResponse,
    Policy,
    Totals,
    WorkerDiedError,
)
from servers.engines.litserve.host.entry import Assignment, Entry, head_of, steps_of
from servers.engines.stream import Stream
from servers.processes.pause import pausable_timeout

_log = logging.getLogger("litport.model")
_SMOOTHING = 0.2


class Link(asyncio.Protocol):
    """One worker. `batches` are in the order in which it works on them; `leaving_s` is when it was told to end."""

    def __init__(
        self,
        path: Path,
        policy: Policy,
        totals: Totals,
        on_change: Callable[[], None],
        requeue: Callable[[list[Entry]], None],
    ) -> None:
        self.path = path
        self.batches: list[Assignment] = []
        self.is_ready = False
        self.leaving_s: float | None = None
        self.is_async = False
        self.batch_size = 1
        self.pid = 0
        self.service_s: float | None = None
        self.idle_since_s = 0.0
        self.restarts = 0
        self._policy = policy
        self._totals = totals
        self._on_change = on_change
        self._requeue = requeue
        self._entries: dict[int, Entry] = {}
        self._reader = wire.Reader()
        self._transport: Any = None
        self._pidfd: int | None = None
        self._may_write = asyncio.Event()
        self._may_write.set()
        self._disconnected = asyncio.Event()
        self._sending: set[asyncio.Task[None]] = set()
        self._grace: asyncio.TimerHandle | None = None
        self._pongs: list[asyncio.Future[bool | None]] = []

    async def keep(self) -> None:
        """Connect, again after each loss, until the host's main process is gone (OSError)."""
        loop = asyncio.get_running_loop()
        while True:
            self._disconnected.clear()
            self._reader = wire.Reader()
            await loop.create_unix_connection(lambda: self, str(self.path))
            await self._disconnected.wait()

    def close(self) -> None:
        """Leave the worker; what it works on is lost."""
        if self._transport is not None:
            self._transport.abort()

    def send(self, groups: Sequence[Sequence[Entry]]) -> None:
        """Give the worker these batches, in one frame."""
        now_s = time.monotonic()
        heads, bodies, large = [], [], []
        for entries in groups:
            batch = Assignment(entries, None if self.batches else self.idle_since_s)
            self.batches.append(batch)
            for entry in entries:
                request = entry.request
                entry.sent_s, entry.batch, entry.link = now_s, batch, self
                self._entries[entry.number] = entry
                body = request.body
                if len(body) > wire.CHUNK_BYTES:
                    body = body[: wire.CHUNK_BYTES]
                    large.append(entry)
                heads.append(head_of(entry, len(body)))
                bodies.append(body)
        self._transport.write(wire.frame(wire.Requests(heads), bodies))
        if large:
            task = asyncio.get_running_loop().create_task(self._send_rest(large))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    def release(self) -> None:
        """The worker leaves, and gets no more requests; it ends once it has answered what it has."""
        self.is_ready, self.leaving_s = False, None
        self._transport.write_eof()

    def cancel(self, entry: Entry) -> None:
        """Nobody waits for this answer any more."""
        entry.is_cancelled = True
        if entry.number in self._entries and self._transport is not None:
            self._transport.write(wire.frame(wire.Cancel([entry.number])))
            self._watch()

    def grant(self, number: int, size: int) -> None:
        """So much of an answer has been passed on."""
        if number in self._entries:
            self._transport.write(wire.frame(wire.Grant(number, size)))

    async def ping(self) -> bool | None:
        """Whether the worker says that it is healthy, beside its work; one that says nothing is replaced (None)."""
        if self._transport is None:
            return None
        pong: asyncio.Future[bool | None] = asyncio.get_running_loop().create_future()
        self._pongs.append(pong)
        self._transport.write(wire.frame(wire.Ping()))
        try:
            async with pausable_timeout(self._policy.ping_timeout_s):
                return await pong
        except TimeoutError:
            self._kill(f"it has not answered a ping for {self._policy.ping_timeout_s:g} s (canary_timeout_s)")
            return None

    async def _send_rest(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            body = entry.request.body
            for offset in range(wire.CHUNK_BYTES, len(body), wire.CHUNK_BYTES):
                await self._may_write.wait()
                if entry.number not in self._entries or entry.is_cancelled:
                    break
                part = body[offset : offset + wire.CHUNK_BYTES]
                self._transport.write(wire.frame(wire.Chunk(entry.number), (part,)))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected; the worker may still be in its setup."""
        self._transport = transport

    def pause_writing(self) -> None:
        """The worker is slow to read."""
        self._may_write.clear()

    def resume_writing(self) -> None:
        """It reads again."""
        self._may_write.set()

    def data_received(self, data: bytes) -> None:
        """Frames, or parts of some."""
        try:
            for head, body in self._reader.feed(data):
                match head:
                    case wire.Replies(replies):
                        self._take(replies, body)
                    case wire.Hello():
                        self._greet(head)
                    case wire.Pong(is_healthy):
                        self._answer_pings(is_healthy)
                    case wire.Leaving():
                        self.leaving_s = time.monotonic()
                        self._on_change()
                    case _:
                        raise wire.WireError(f"expected a reply, got {type(head).__name__}")
        except wire.WireError as problem:
            _log.error("%s: a worker's connection is closed: %s", self._policy.name, problem)
            self._transport.abort()

    def connection_lost(self, _error: Exception | None) -> None:
        """The worker has ended. What it had begun is lost; what only waited in it goes to another."""
        self.is_ready, self.leaving_s = False, None
        self._may_write.set()
        self._unwatch()
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None
        sending = [entry for entry in self._entries.values() if entry.batch is None]
        batches, self.batches, self._entries = self.batches, [], {}
        running = batches if self.is_async else batches[:1]
        for entry in (*sending, *(entry for batch in running for entry in batch.entries)):
            entry.fail(WorkerDiedError(f"worker process {self.pid} ended"))
        self._requeue([entry for batch in batches[len(running) :] for entry in batch.entries if not entry.is_cancelled])
        self._answer_pings(None)
        self._transport = None
        self._disconnected.set()
        self._on_change()

    def _answer_pings(self, is_healthy: bool | None) -> None:
        pongs, self._pongs = self._pongs, []
        for pong in pongs:
            if not pong.done():
                pong.set_result(is_healthy)

    def _greet(self, hello: wire.Hello) -> None:
        if hello.version != wire.VERSION:
            raise wire.WireError(f"expected version {wire.VERSION} of the protocol, got {hello.version}")
        self.restarts += bool(self.pid)
        self.pid, self.batch_size, self.is_async = hello.pid, hello.batch_size, hello.is_async
        with contextlib.suppress(OSError):  # it has just ended
            self._pidfd = os.pidfd_open(hello.pid)
        self.idle_since_s = time.monotonic()
        self.is_ready = True
        self._on_change()

    def _take(self, replies: Sequence[wire.Reply], bodies: bytes) -> None:
        offset = 0
        has_room = False
        for reply in replies:
            body = bodies[offset : offset + reply.size] if len(replies) > 1 else bodies
            offset += reply.size
            entry = self._entries.get(reply.id)
            if entry is None:
                continue
            if reply.kind == wire.Kind.WHOLE:
                entry.settle(HostResponse(reply.status, reply.headers, body, None, steps_of(entry, reply)))
            elif reply.kind == wire.Kind.BEGIN:
                parts = Stream(partial(self.cancel, entry), partial(self.grant, entry.number), wire.WINDOW_BYTES // 2)
                parts.push(body)
                entry.settle(HostResponse(reply.status, reply.headers, b"", parts))
                if reply.times is not None and entry.response is not None:
                    entry.response.steps = steps_of(entry, reply)
                    has_room = self._leave(entry, reply) or has_room
            elif entry.response is not None and entry.response.parts is not None:
                if reply.kind == wire.Kind.PART:
                    if entry.is_cancelled:
                        self.grant(entry.number, len(body))
                    else:
                        entry.response.parts.push(body)
                else:
                    entry.response.steps = entry.response.steps or steps_of(entry, reply)
                    entry.response.parts.end(None if reply.failure is None else BrokenAnswerError(reply.failure))
            if reply.kind in (wire.Kind.WHOLE, wire.Kind.END):
                has_room = self._finish(entry, reply) or has_room
        if has_room:
            self._on_change()

    def _finish(self, entry: Entry, reply: wire.Reply) -> bool:
        """Its answer is here; returns whether the worker has room again."""
        del self._entries[entry.number]
        if entry.response is not None and entry.response.steps is not None:
            self._totals.add(entry.response.steps, time.monotonic() - entry.queued_s)
        has_room = self._leave(entry, reply)
        entry.response = None  # it refers to the entry, as the batch does: a cycle only the collector would free
        return has_room

    def _leave(self, entry: Entry, reply: wire.Reply) -> bool:
        """The API's code is done with it, however slow its client; returns whether it is with all of its batch."""
        batch, entry.batch = entry.batch, None
        if batch is None:
            return False
        self._totals.retried += reply.is_retried
        batch.open -= 1
        if batch.open:
            return False
        self.batches.remove(batch)
        self._totals.batch_sizes[len(batch.entries)] += 1
        self._unwatch()
        self._watch()
        if reply.times is not None:
            spent_s = sum(reply.times[2:])
            before_s = spent_s if self.service_s is None else self.service_s
            self.service_s = before_s + _SMOOTHING * (spent_s - before_s)
        if not self.batches:
            self.idle_since_s = time.monotonic()
        return True

    def _watch(self) -> None:
        """If nobody waits for what the worker works on, give it the grace to leave it."""
        if self._grace is None and self.batches and not self.is_async:
            batch = self.batches[0]
            if all(entry.is_cancelled or entry.batch is None for entry in batch.entries):
                self._grace = asyncio.get_running_loop().call_later(self._policy.cancel_grace_s, self._kill_for_work)

    def _unwatch(self) -> None:
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None

    def _kill_for_work(self) -> None:
        self._grace = None
        grace_s = self._policy.cancel_grace_s
        self._kill(f"its work went on for {grace_s:g} s after its request was cancelled (cancel_grace_s)")

    def _kill(self, reason: str) -> None:
        name = self._policy.name
        _log.error("%s: worker process %d is killed: %s", name, self.pid, reason, extra={"model": name})
        if self._pidfd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
