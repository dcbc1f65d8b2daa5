"""The arrivals of the load for a model without a server: requests in their order, as they come due."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.load.workload import Item
from clients.call_queue import CallQueue
from clients.record import RequestRecord


@dataclass(frozen=True)
class Due:
    """A request that is due, and since when (`time.monotonic()`, seconds)."""

    item: Item
    scheduled_s: float

    def record(self, sent_s: float) -> RequestRecord:
        """A record of it, to be completed."""
        item = self.item
        return RequestRecord(
            index=item.index,
            scheduled_s=self.scheduled_s,
            sent_s=sent_s,
            status=200,
            asked_tokens=item.output_tokens,
            prompt_tokens=len(item.token_ids[0]) if item.token_ids else None,
        )


class Feed:
    """Gives out `items` from now on; a closed load's are due as soon as they are asked for."""

    def __init__(self, items: Sequence[Item], time_limit_s: float) -> None:
        begin_s = time.monotonic()
        self._queue = CallQueue(items, begin_s)
        self._end_s = begin_s + time_limit_s

    def due(self, most: int) -> list[Due]:
        """Up to `most` requests that are due now, without waiting."""
        ready: list[Due] = []
        now_s = time.monotonic()
        while len(ready) < most and now_s < self._end_s and (item := self._queue.head):
            due_s = self._queue.due_s(item)
            if due_s > now_s:
                break
            ready.append(Due(self._queue.pop(), now_s if item.at_s is None else due_s))
        return ready

    def wait(self, most: int) -> list[Due]:
        """As `due`, but wait for the first; empty at the end. Only for callers with nothing under way."""
        while item := self._queue.head:
            due_s = self._queue.due_s(item)
            if max(time.monotonic(), due_s) >= self._end_s:
                break
            if ready := self.due(most):
                return ready
            time.sleep(max(0.0, due_s - time.monotonic()))
        return []

    def finish(self, item: Item) -> None:
        """What waits for this answer may come."""
        self._queue.answer(item.index, time.monotonic())
