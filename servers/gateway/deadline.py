"""The deadline of a request: the limit of the model or the server, or less if the client asks for less.

A deadline also ends a request whose client has left: in both cases nobody takes the answer. The work on it is cancelled
then, whether it waits for a turn or for the model. What has been sent of an answer stays sent.

After a pause of this process (see `servers.processes.pause`) the limit begins anew: the model may have answered in it.
"""

import asyncio
import math
import time
from collections.abc import Awaitable

from servers.errors import ApiError
from servers.gateway.cycle import Cycle
from servers.gateway.request import ClientGone, Request
from servers.processes.pause import PauseClock

HEADER = "x-request-timeout"


class Deadline:
    """When a request must be answered: `limit_s` after `begin_s`, the arrival of its head (`time.monotonic()`).

    None is no limit. `limit_name` is the setting or header that errors name, and `clock` knows the last pause.
    """

    def __init__(self, begin_s: float, limit_s: float | None, limit_name: str, clock: PauseClock) -> None:
        self._begin_s = begin_s
        self._limit_s = limit_s
        self._limit_name = limit_name
        self._clock = clock
        self._timer: asyncio.TimerHandle | None = None

    @classmethod
    def of_request(
        cls, request: Request, begin_s: float, limit_s: float | None, limit_name: str, clock: PauseClock
    ) -> "Deadline":
        """The smaller of this limit and the client's header. Raises ApiError 400 for a wrong header."""
        text = request.headers.get(HEADER)
        if text is None:
            return cls(begin_s, limit_s, limit_name, clock)
        try:
            client_s = float(text)
        except ValueError:
            client_s = math.nan
        if not 0 < client_s < math.inf:
            message = f"{HEADER}: expected a number of seconds above 0, got '{text[:50]}'"
            raise ApiError(400, message, code="invalid_timeout", param=HEADER)
        if limit_s is None or client_s < limit_s:
            return cls(begin_s, client_s, HEADER, clock)
        return cls(begin_s, limit_s, limit_name, clock)

    async def limit_answer(self, cycle: Cycle, work: Awaitable[None]) -> None:
        """Do the work; cancel it when the client leaves (ClientGone) or time is up (ApiError 504).

        The body must have been read before.
        """
        has_left = False
        loop = asyncio.get_running_loop()
        timeout = asyncio.timeout(None)

        def leave() -> None:
            nonlocal has_left
            has_left = True
            if not timeout.expired():
                timeout.reschedule(loop.time())

        try:
            async with timeout:
                self._run(timeout)
                cycle.watch(leave)
                await work
        except TimeoutError:
            if has_left:
                raise ClientGone from None
            message = f"no complete answer within {self._limit_s:g} s ({self._limit_name})"
            raise ApiError(504, message, code="timeout") from None
        finally:
            self._stop()
            cycle.watch(None)

    async def limit_body(self, body: Awaitable[bytes]) -> bytes:
        """Read the request's body; give up when time is up (ApiError 408)."""
        try:
            async with asyncio.timeout(None) as timeout:
                self._run(timeout)
                return await body
        except TimeoutError:
            message = f"the whole body did not come within {self._limit_s:g} s ({self._limit_name})"
            raise ApiError(408, message, code="request_timeout", headers={"connection": "close"}) from None
        finally:
            self._stop()

    def _run(self, timeout: asyncio.Timeout) -> None:
        """Let it expire when time is up, then and at each pause that moves that moment."""
        loop = asyncio.get_running_loop()
        remaining_s = self._remaining_s()
        if remaining_s is None:
            return
        if remaining_s > 0:
            self._timer = loop.call_later(remaining_s, self._run, timeout)
        elif not timeout.expired():
            timeout.reschedule(loop.time())

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _remaining_s(self) -> float | None:
        if self._limit_s is None:
            return None
        return max(self._begin_s, self._clock.resumed_s()) + self._limit_s - time.monotonic()
