"""A body on its way reaches its reader whole, in order, and no faster than it is read."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from servers.engines.stream import Stream


class _Reader:
    """A sink that takes `room` chunks, and then waits until `read` is set."""

    def __init__(self, room: int = 1000, error: Exception | None = None) -> None:
        self.chunks: list[bytes] = []
        self.room = room
        self.read = asyncio.Event()
        self._error = error

    def write(self, chunk: bytes) -> bool:
        if self._error is not None:
            raise self._error
        self.chunks.append(chunk)
        return len(self.chunks) < self.room

    async def drain(self) -> None:
        if len(self.chunks) >= self.room:
            await self.read.wait()
            self.room = 1000


def _stream(
    grants: list[int] | None = None, window_bytes: int = 4, on_close: Callable[[], None] = lambda: None
) -> Stream:
    return Stream(on_close, ([] if grants is None else grants).append, window_bytes)


def _run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 5))


def test_what_came_before_and_what_comes_later_is_relayed_in_order() -> None:
    async def test() -> None:
        grants: list[int] = []
        stream, reader = _stream(grants), _Reader()
        stream.push(b"a")
        stream.push(b"b")
        relay = asyncio.create_task(stream.relay(reader))
        await asyncio.sleep(0)
        stream.push(b"cdef")
        assert reader.chunks == [b"ab", b"cdef"]  # in the call itself
        stream.push(b"g")
        stream.end(chunk=b"h")
        assert await relay == b"h", "what came with the end is not yet written"
        assert reader.chunks == [b"ab", b"cdef", b"g"]
        assert grants == [6]

    _run(test())


def test_a_reader_without_room_is_waited_for_and_nothing_is_granted_meanwhile() -> None:
    async def test() -> None:
        grants: list[int] = []
        stream, reader = _stream(grants, window_bytes=1), _Reader(room=2)
        relay = asyncio.create_task(stream.relay(reader))
        await asyncio.sleep(0)
        for chunk in (b"a", b"b", b"c", b"d"):
            stream.push(chunk)
        for _ in range(3):
            await asyncio.sleep(0)
        assert reader.chunks == [b"a", b"b"]
        assert grants == [1, 1]
        reader.read.set()
        stream.end()
        assert b"".join(reader.chunks) + await relay == b"abcd"

    _run(test())


@pytest.mark.parametrize("relays", [True, False])
def test_an_error_of_the_source_comes_after_what_it_sent(relays: bool) -> None:
    async def test() -> None:
        stream, reader = _stream(), _Reader()
        stream.push(b"a")
        stream.end(ConnectionResetError("gone"))
        stream.end()  # the first end counts

        async def iterate() -> None:
            async for chunk in stream:
                reader.write(chunk)

        with pytest.raises(ConnectionResetError):
            await (stream.relay(reader) if relays else iterate())
        assert reader.chunks == [b"a"]

    _run(test())


def test_an_error_of_the_sink_ends_the_relay() -> None:
    async def test() -> None:
        stream = _stream()
        relay = asyncio.create_task(stream.relay(_Reader(error=RuntimeError("too long"))))
        await asyncio.sleep(0)
        stream.push(b"a")
        with pytest.raises(RuntimeError, match="too long"):
            await relay

    _run(test())


def test_only_a_body_that_is_all_there_is_whole() -> None:
    async def test() -> None:
        stream = _stream()
        stream.push(b"a")
        assert stream.whole() is None
        stream.push(b"b")
        stream.end()
        assert stream.whole() == b"ab"
        broken = _stream()
        broken.end(ConnectionResetError())
        assert broken.whole() is None

    _run(test())


def test_a_reader_that_leaves_is_reported_once_and_not_after_the_end() -> None:
    async def test() -> None:
        calls: list[str] = []
        stream = _stream(on_close=lambda: calls.append("left"))
        stream.close()
        stream.close()
        ended = _stream(on_close=lambda: calls.append("too late"))
        ended.end()
        ended.close()
        assert calls == ["left"]

    _run(test())
