"""The state of one visitor: the samples of the live tab, and the answers that are still coming.

Gradio holds it in memory for as long as the visitor stays. There is no key in it.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import TypeVar

from clients.playground.live import Sample

T = TypeVar("T")


class Stop:
    """Whether the visitor has stopped one answer, and whether the answer has ended."""

    def __init__(self) -> None:
        self.pressed = asyncio.Event()
        self.ended = asyncio.Event()

    async def during(self, pieces: AsyncGenerator[T, None]) -> AsyncIterator[T]:
        """The pieces as they come, until the visitor stops them; then their source is closed, even while it waits."""
        stop = asyncio.ensure_future(self.pressed.wait())
        try:
            while True:
                piece = asyncio.ensure_future(anext(pieces, None))
                await asyncio.wait({piece, stop}, return_when=asyncio.FIRST_COMPLETED)
                if stop.done():
                    piece.cancel()
                    await asyncio.wait({piece})
                    return
                value = piece.result()
                if value is None:
                    return
                yield value
        finally:
            stop.cancel()
            await pieces.aclose()


class Visit:
    """The state of one visitor."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self._stops: list[Stop] = []

    @contextlib.contextmanager
    def answering(self) -> Iterator[Stop]:
        """The stop of one answer, for as long as the answer comes."""
        stop = Stop()
        self._stops.append(stop)
        try:
            yield stop
        finally:
            self._stops.remove(stop)
            stop.ended.set()

    async def stop(self) -> None:
        """Stop all answers, and return when they have ended."""
        stops = list(self._stops)
        for stop in stops:
            stop.pressed.set()
        for stop in stops:
            await stop.ended.wait()
