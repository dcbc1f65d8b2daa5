"""The deadline of a request: the limit of the model or the server, or less if the client asks for less.

A deadline also ends a request whose client has left: in both cases nobody takes the answer. The work on it is cancelled
then, whether it waits for a turn or for the model. What has been sent of an answer stays sent.
"""

import asyncio
import math
import time
from collections.abc import Awaitable

from servers.errors import ApiError
from servers.gateway.cycle import Cycle
from servers.gateway.request import ClientGone, Request

HEADER = "x-request-timeout"


class Deadline:
    """When a request must be answered: `limit_s` after `begin_s`, the arrival of its head (`time.monotonic()`).

    None is no limit. `limit_name` is the setting or header that errors name.
    """

    def __init__(self, begin_s: float, limit_s: float | None, limit_name: str) -> None:
        self._begin_s = begin_s
        self._limit_s = limit_s
        self._limit_name = limit_name

    @classmethod
    def of_request(cls, request: Request, begin_s: float, limit_s: float | None, limit_name: str) -> "Deadline":
        """The smaller of this limit and the client's header. Raises ApiError 400 for a wrong header."""
        text = request.headers.get(HEADER)
        if text is None:
            return cls(begin_s, limit_s, limit_name)
        try:
            client_s = float(text)
        except ValueError:
            client_s = math.nan
        if not 0 < client_s < math.inf:
            message = f"{HEADER}: expected a number of seconds above 0, got '{text[:50]}'"
            raise ApiError(400, message, code="invalid_timeout", param=HEADER)
        if limit_s is None or client_s < limit_s:
            return cls(begin_s, client_s, HEADER)
        return cls(begin_s, limit_s, limit_name)

    async def limit_answer(self, cycle: Cycle, work: Awaitable[None]) -> None:
        """Do the work; cancel it when the client leaves (ClientGone) or time is up (ApiError 504).

        The body must have been read before.
        """
        has_left = False
        loop = asyncio.get_running_loop()
        timeout = asyncio.timeout(self._remaining_s())

        def leave() -> None:
            nonlocal has_left
            has_left = True
            if not timeout.expired():
                timeout.reschedule(loop.time())

        try:
            async with timeout:
                cycle.watch(leave)
                await work
        except TimeoutError:
            if has_left:
                raise ClientGone from None
            message = f"no complete answer within {self._limit_s:g} s ({self._limit_name})"
            raise ApiError(504, message, code="timeout") from None
        finally:
            cycle.watch(None)

    async def limit_body(self, body: Awaitable[bytes]) -> bytes:
        """Read the request's body; give up when time is up (ApiError 408)."""
        try:
            async with asyncio.timeout(self._remaining_s()):
                return await body
        except TimeoutError:
            message = f"the whole body did not come within {self._limit_s:g} s ({self._limit_name})"
            raise ApiError(408, message, code="request_timeout", headers={"connection": "close"}) from None

    def _remaining_s(self) -> float | None:
        return None if self._limit_s is None else max(0.0, self._begin_s + self._limit_s - time.monotonic())
