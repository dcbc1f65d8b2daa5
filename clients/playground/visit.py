"""What belongs to one visitor: the samples of the live page, and the answers that are still coming.

Gradio keeps it in memory for as long as the visitor stays. It holds no key.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import TypeVar

from clients.playground.live import Sample

T = TypeVar("T")


class Stop:
    """Whether one answer is wanted no more, and whether it has ended."""

    def __init__(self) -> None:
        self.pressed = asyncio.Event()
        self.ended = asyncio.Event()

    async def during(self, pieces: AsyncGenerator[T, None]) -> AsyncIterator[T]:
        """The pieces as they come, until it is pressed; then their source is closed, even where it waits."""
        pressed = asyncio.ensure_future(self.pressed.wait())
        try:
            while True:
                piece = asyncio.ensure_future(anext(pieces))
                await asyncio.wait({piece, pressed}, return_when=asyncio.FIRST_COMPLETED)
                if pressed.done():
                    piece.cancel()
                    await asyncio.wait({piece})
                    return
                try:
                    yield piece.result()
                except StopAsyncIteration:
                    return
        finally:
            pressed.cancel()
            await pieces.aclose()


class Visit:
    """One visitor's own; compared and hashed as the object it is."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self._stops: list[Stop] = []

    @contextlib.contextmanager
    def answering(self) -> Iterator[Stop]:
        """For the time of one answer, what stops it."""
        stop = Stop()
        self._stops.append(stop)
        try:
            yield stop
        finally:
            self._stops.remove(stop)
            stop.ended.set()

    async def stop(self) -> None:
        """Stop all answers, and return once nothing more of them comes."""
        stops = list(self._stops)
        for stop in stops:
            stop.pressed.set()
        for stop in stops:
            await stop.ended.wait()
