"""The arrivals of the load for a model without a server: requests in their order, as they come due."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.load.workload import Item
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
        self._items = list(items)
        self._next = 0
        self._answers: set[int] = set()
        self._begin_s = time.monotonic()
        self._end_s = self._begin_s + time_limit_s

    @property
    def exhausted(self) -> bool:
        """Whether there is nothing more to come."""
        if self._next >= len(self._items):
            return True
        return max(time.monotonic(), self._due_s(self._items[self._next])) >= self._end_s

    def due(self, most: int) -> list[Due]:
        """Up to `most` requests that are due now, without waiting."""
        ready: list[Due] = []
        now_s = time.monotonic()
        while len(ready) < most and not self.exhausted:
            item = self._items[self._next]
            if self._due_s(item) > now_s or (item.after is not None and item.after not in self._answers):
                break
            ready.append(Due(item, now_s if item.at_s is None else self._due_s(item)))
            self._next += 1
        return ready

    def wait(self, most: int) -> list[Due]:
        """As `due`, but wait for the first; empty at the end. Only for callers with nothing under way."""
        while not self.exhausted:
            if ready := self.due(most):
                return ready
            time.sleep(max(0.0, self._due_s(self._items[self._next]) - time.monotonic()))
        return []

    def finish(self, item: Item) -> None:
        """What waits for this answer may come."""
        self._answers.add(item.index)

    def _due_s(self, item: Item) -> float:
        return self._begin_s + (item.at_s or 0.0)
