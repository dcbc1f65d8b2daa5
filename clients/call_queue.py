"""Calls in the order in which they are to be sent; one that follows another comes once that is answered."""

import heapq
from collections.abc import Iterable
from typing import Generic, Protocol, TypeVar


class Planned(Protocol):
    """What a queue reads of a call: its number, when it is due, and the number of the call that it follows."""

    @property
    def index(self) -> int:
        """Its number, which tells its place."""
        ...

    @property
    def at_s(self) -> float | None:
        """When it is due, counted from the start of the load; None: at once."""
        ...

    @property
    def after(self) -> int | None:
        """The call to whose answer it waits."""
        ...


C = TypeVar("C", bound=Planned)


class CallQueue(Generic[C]):
    """The calls that are left. Times are seconds of `time.monotonic()`; `at_s` counts from `begin_s`.

    It is true while a call is left, and `head` is None while all of those wait for answers.
    """

    def __init__(self, calls: Iterable[C], begin_s: float = 0.0) -> None:
        self.begin_s = begin_s
        self._ready: list[tuple[int, C]] = []
        self._followers: dict[int, list[C]] = {}
        self._answered_s: dict[int | None, float] = {}
        for call in calls:
            if call.after is None:
                heapq.heappush(self._ready, (call.index, call))
            else:
                self._followers.setdefault(call.after, []).append(call)

    def __bool__(self) -> bool:
        return bool(self._ready or self._followers)

    @property
    def head(self) -> C | None:
        """The first call that waits for no answer."""
        return self._ready[0][1] if self._ready else None

    def due_s(self, call: C) -> float:
        """The time planned, but not before the answer to the call that it follows."""
        return max(self.begin_s + (call.at_s or 0.0), self._answered_s.get(call.after, self.begin_s))

    def pop(self) -> C:
        """Take the head."""
        return heapq.heappop(self._ready)[1]

    def answer(self, index: int, now_s: float) -> None:
        """The calls that follow this one may come."""
        for call in self._followers.pop(index, ()):
            self._answered_s[index] = now_s
            heapq.heappush(self._ready, (call.index, call))
