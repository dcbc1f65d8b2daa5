"""The deadline of a request: the model's or the server's limit, or less if the client asks for less.

It also ends a request whose client has left, since that is the same: nobody waits for the answer any more. Whatever
runs in its block is cancelled then, be it the wait for a turn or the call to the model. It never undoes an answer.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator

from servers.errors import ApiError
from servers.gateway.request import ClientGone, Receive, Request

HEADER = "x-request-timeout"


class Deadline:
    """When a request has to be answered; `begin_s` is when its head had come (`time.monotonic()`)."""

    def __init__(self, begin_s: float, limit_s: float | None, named: str) -> None:
        self._begin_s = begin_s
        self._limit_s = limit_s
        self._named = named

    @classmethod
    def of(cls, request: Request, begin_s: float, limit_s: float | None, named: str) -> "Deadline":
        """The limit called `named`, or what the client's header asks for. Raises ApiError 400 for a wrong header."""
        text = request.headers.get(HEADER)
        if text is None:
            return cls(begin_s, limit_s, named)
        try:
            asked_s = float(text)
        except ValueError:
            asked_s = math.nan
        if not 0 < asked_s < math.inf:
            message = f"{HEADER}: expected a number of seconds above 0, got '{text[:50]}'"
            raise ApiError(400, message, code="invalid_timeout", param=HEADER)
        return cls(begin_s, asked_s, HEADER) if limit_s is None or asked_s < limit_s else cls(begin_s, limit_s, named)

    @contextlib.asynccontextmanager
    async def hold(self, receive: Receive) -> AsyncIterator[None]:
        """Cancel the block when the client leaves (ClientGone) or the time is over (ApiError 504).

        The request's body must have been read: from then on `receive` tells only that the client has left.
        """
        gone = False
        loop = asyncio.get_running_loop()

        async def watch() -> None:
            nonlocal gone
            while (await receive())["type"] != "http.disconnect":
                pass
            gone = True
            limit.reschedule(loop.time())

        watcher = loop.create_task(watch())
        try:
            async with asyncio.timeout(self._left_s()) as limit:
                yield
        except TimeoutError:
            if gone:
                raise ClientGone from None
            raise self._over() from None
        finally:
            watcher.cancel()

    @contextlib.asynccontextmanager
    async def limit(self) -> AsyncIterator[None]:
        """Cancel the block, which reads the request's body, when the time is over (ApiError 408)."""
        try:
            async with asyncio.timeout(self._left_s()):
                yield
        except TimeoutError:
            message = f"the whole body did not come within {self._limit_s:g} s ({self._named})"
            raise ApiError(408, message, code="request_timeout", headers={"connection": "close"}) from None

    def _left_s(self) -> float | None:
        return None if self._limit_s is None else max(0.0, self._begin_s + self._limit_s - time.monotonic())

    def _over(self) -> ApiError:
        return ApiError(504, f"no complete answer within {self._limit_s:g} s ({self._named})", code="timeout")
