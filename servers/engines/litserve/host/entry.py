"""A request on the front door's side, and the batch with which a worker has it."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from servers.engines.litserve.host import wire
from servers.engines.litserve.host.answer import DispatchError, HostRequest, HostResponse, Steps


class Entry:
    """A request between `send` and the last of its answer. `link` is the worker's that has it."""

    __slots__ = ("batch", "future", "is_cancelled", "link", "number", "queued_s", "request", "response", "sent_s")

    def __init__(self, number: int, request: HostRequest, future: "asyncio.Future[HostResponse]") -> None:
        self.number = number
        self.request = request
        self.future = future
        self.queued_s = time.monotonic()
        self.sent_s = 0.0
        self.batch: Assignment | None = None
        self.link: Any = None
        self.response: HostResponse | None = None
        self.is_cancelled = False

    def settle(self, response: HostResponse) -> None:
        """Its answer is there, or the beginning of it."""
        self.response = response
        if not self.future.done():
            self.future.set_result(response)

    def fail(self, error: DispatchError) -> None:
        """There is no answer, or no more of it."""
        if self.response is not None:
            if self.response.parts is not None:
                self.response.parts.end(error)
        elif not self.future.done():
            self.future.set_exception(error)


class Assignment:
    """Requests that a worker has together. `idle_since_s` is when the worker began to wait for them, if it did."""

    __slots__ = ("entries", "idle_since_s", "open")

    def __init__(self, entries: Sequence[Entry], idle_since_s: float | None) -> None:
        self.entries = entries
        self.open = len(entries)  # how many are not answered yet
        self.idle_since_s = idle_since_s


def head_of(entry: Entry, size: int) -> wire.Request:
    """The request as the wire has it, with the first `size` bytes of its body."""
    request = entry.request
    return wire.Request(
        entry.number,
        size,
        len(request.body),
        request.content_type,
        request.request_id,
        request.query,
        request.method,
        request.headers,
        entry.queued_s,
        request.has_tensors,
    )


def steps_of(entry: Entry, reply: wire.Reply) -> Steps:
    """Where its time went, from what both ends measured."""
    batch = entry.batch
    assert batch is not None
    waited_s = 0.0
    if batch.idle_since_s is not None:
        waited_s = max(0.0, entry.sent_s - max(entry.queued_s, batch.idle_since_s))
    queue_s = entry.sent_s - entry.queued_s - waited_s
    if reply.times is None:  # refused before it was worked on
        return Steps(time.monotonic() - entry.sent_s, queue_s, waited_s, 0.0, 0.0, 0.0, 0)
    received_s, begun_s, decode_s, predict_s, encode_s = reply.times
    queue_s += begun_s - received_s
    return Steps(received_s - entry.sent_s, queue_s, waited_s, decode_s, predict_s, encode_s, reply.batch_size)
