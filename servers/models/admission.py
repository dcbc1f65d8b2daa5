"""Admission: how many requests of one model run and wait, which is next, and which are rejected at once.

An engine's own queue has no bound and does not distinguish callers. Admission lets as many requests run as the engine
can batch, lets a bounded number wait, and rejects further ones with the time after which to try again. A free place
goes to the waiting caller with the fewest running requests, so that one caller's load does not starve another's.
"""

import asyncio
import math
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Protocol

from servers.errors import MAX_RETRY_AFTER_S, ApiError, UnservedError

# Weight of the newest request in the moving mean of the service time.
_NEWEST_WEIGHT = 0.1


class Limits(Protocol):
    """The limits of one model, read at each request, since they may change while it is served."""

    name: str

    @property
    def max_running(self) -> int:
        """Most requests that run at a time; 0 while the model is not loaded."""
        ...

    @property
    def max_waiting(self) -> int:
        """Most requests that wait at a time."""
        ...

    @property
    def max_tokens_in_flight(self) -> int | None:
        """Most tokens of the requests that run or wait; None for no limit."""
        ...


class Admission:
    """The queue in front of one model. `clock` is in seconds, and `used_at_s` is when a request last ended by it."""

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._running: Counter[str] = Counter()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}  # the caller whose turn was longest ago comes first
        self._tokens = 0
        self._service_s: float | None = None
        self.used_at_s = -math.inf

    @property
    def running(self) -> int:
        """Requests that the model's process has."""
        return self._running.total()

    @property
    def waiting(self) -> int:
        """Requests that wait for their turn."""
        return sum(map(len, self._waiting.values()))

    async def enter(self, caller: str, tokens: int) -> float:
        """Wait for a place, and hold it until `leave`, which needs the moment that is returned.

        `tokens` is what the request may cost, estimated. Raises UnservedError 429 when the model has no room for one
        more, be it at once or because a caller that has fewer requests came later.
        """
        self._check_tokens(tokens)
        self._tokens += tokens
        try:
            if self._waiting or self.running >= self._limits.max_running:
                await self._wait(caller)
            else:
                self._running[caller] += 1
        except BaseException:  # cancelled, or turned away
            self._tokens -= tokens
            raise
        return self._clock()

    async def wait(self, caller: str, tokens: int) -> None:
        """Wait for a place as `enter` does, and leave it at once."""
        await self.enter(caller, tokens)
        self._tokens -= tokens
        self._give_back(caller)

    def leave(self, caller: str, tokens: int, begin_s: float) -> None:
        """Give the place to the next; `begin_s` is when it was taken."""
        self.used_at_s = self._clock()
        self._note(self.used_at_s - begin_s)
        self._tokens -= tokens
        self._give_back(caller)

    def admit(self) -> None:
        """Give free places to those that wait; called when there are more places than before."""
        while self._waiting and self.running < self._limits.max_running:
            following = min(self._waiting, key=lambda name: self._running[name])
            place = self._waiting[following][0]
            self._forget(following, place)
            if following in self._waiting:  # to the back of the row
                self._waiting[following] = self._waiting.pop(following)
            if not place.done():
                self._running[following] += 1
                place.set_result(None)

    def refuse(self, reason: Callable[[], ApiError]) -> None:
        """Turn away all that wait, each with an error of its own."""
        for caller in list(self._waiting):
            for place in self._waiting.pop(caller):
                if not place.done():
                    place.set_exception(reason())

    async def _wait(self, caller: str) -> None:
        if self.waiting >= self._limits.max_waiting:
            self._make_room(caller)
        place = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(caller, deque()).append(place)
        try:
            await place  # whoever gives it counts it as running
        except BaseException:  # cancelled, or turned away
            if place.done() and not place.cancelled() and place.exception() is None:
                self._give_back(caller)  # it had just been given
            else:
                self._forget(caller, place)
            raise

    def _make_room(self, caller: str) -> None:
        """Turn away the newest request of the caller with the most waiting, or this one.

        One that was cancelled just now is no longer in the row, although its task has not left it yet.
        """
        ended = [(name, place) for name, places in self._waiting.items() for place in places if place.done()]
        for name, place in ended:
            self._forget(name, place)
        if ended:
            return
        greediest = max(self._waiting, key=lambda name: len(self._waiting[name]), default=caller)
        own_waiting = len(self._waiting.get(caller, ()))
        if not self._waiting or len(self._waiting[greediest]) <= own_waiting + 1:
            raise self._full()
        last = self._waiting[greediest][-1]
        last.set_exception(self._full())
        self._forget(greediest, last)

    def _give_back(self, caller: str) -> None:
        self._running[caller] -= 1
        if not self._running[caller]:
            del self._running[caller]
        self.admit()

    def _forget(self, caller: str, place: "asyncio.Future[None]") -> None:
        places = self._waiting.get(caller)
        if places is None or place not in places:
            return
        places.remove(place)
        if not places:
            del self._waiting[caller]

    def _note(self, service_s: float) -> None:
        mean_s = self._service_s
        self._service_s = service_s if mean_s is None else mean_s + _NEWEST_WEIGHT * (service_s - mean_s)

    def _check_tokens(self, tokens: int) -> None:
        limit = self._limits.max_tokens_in_flight
        if limit is None or not self._tokens or self._tokens + tokens <= limit:
            return  # a lone request is vLLM's to judge, however large
        name = self._limits.name
        message = (
            f"model '{name}' has {self._tokens} tokens in flight and this request may take {tokens}; it has room for "
            f"{limit} (models.{name}.max_tokens_in_flight)"
        )
        raise UnservedError(429, message, code="overloaded", headers=self._retry_after())

    def _full(self) -> UnservedError:
        name, waiting = self._limits.name, self.waiting
        message = (
            f"model '{name}' works on {self.running} requests and {waiting} wait; it has no room for more "
            f"(models.{name}.max_waiting)"
        )
        return UnservedError(429, message, code="overloaded", headers=self._retry_after())

    def _retry_after(self) -> dict[str, str]:
        """When the requests that wait now will have begun, at the pace of the last ones."""
        advice_s = (self._service_s or 1.0) * (self.waiting + 1) / max(1, self._limits.max_running)
        return {"retry-after": str(min(MAX_RETRY_AFTER_S, max(1, math.ceil(advice_s))))}
