"""The body of an answer on its way: from the connection to a process that pushes it to whoever passes it on.

While `relay` waits, a chunk goes to its sink in the very call that brought it, without a change of task: for an event
stream that is half of what an event costs.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol


class Sink(Protocol):
    """Takes the chunks of an answer."""

    def write(self, chunk: bytes) -> bool:
        """Take a chunk; False when it is enough until `drain` returns."""
        ...

    async def drain(self) -> None:
        """Wait until there is room again."""
        ...


class Editor(Protocol):
    """Changes the chunks of an answer on their way; it may hold back a part until the next chunk."""

    def edit(self, chunk: bytes) -> bytes:
        """What is passed on now."""
        ...

    def rest(self) -> bytes:
        """What was held back, at the end. What it raises is raised to the reader in the place of the end."""
        ...


class Stream:
    """The chunks of one body; for one reader, which either iterates or relays.

    `on_close` is called when the reader leaves before the end. `grant` is called with the number of bytes that were
    passed on, whenever they are at least `window_bytes`: a source that sends no more than it is granted holds back for
    a slow reader.
    """

    def __init__(self, on_close: Callable[[], None], grant: Callable[[int], None], window_bytes: int) -> None:
        self._on_close = on_close
        self._grant = grant
        self._window_bytes = window_bytes
        self._chunks: deque[bytes] = deque()
        self._passed_bytes = 0
        self._waiter: asyncio.Future[None] | None = None
        self._sink: Sink | None = None
        self._is_over = False
        self._error: Exception | None = None
        self._editor: Editor | None = None

    def __aiter__(self) -> "Stream":
        return self

    async def __anext__(self) -> bytes:
        """All that has come since the last time. Raises the error that the source ended it with."""
        while not self._chunks:
            if self._is_over:
                if self._error is not None:
                    raise self._error
                raise StopAsyncIteration
            await self._wait()
        return self._take()

    async def relay(self, sink: Sink) -> bytes:
        """Pass on the body to its end; returns what came with the end, so that both may be written at once.

        Raises what iterating raises, and what the sink raises.
        """
        while not self._is_over:
            if self._chunks:
                if not sink.write(self._take()):
                    await sink.drain()
                continue
            self._sink = sink
            try:
                await self._wait()
            finally:
                self._sink = None
            await sink.drain()
        if self._error is None:
            return self._take()
        if self._chunks:
            sink.write(self._take())
        raise self._error

    def whole(self) -> bytes | None:
        """The body, if all of it is there; else None, and nothing is taken."""
        if not self._is_over or self._error is not None:
            return None
        return self._take()

    def close(self) -> None:
        """The reader leaves."""
        if not self._is_over:
            self._is_over = True
            self._on_close()

    def edit(self, editor: Editor) -> None:
        """Pass on what the editor makes of the chunks: of those that are there, and of those that come."""
        self._editor = editor
        chunk = editor.edit(b"".join(self._chunks)) if self._chunks else b""
        if self._is_over and self._error is None:
            self._error, end = _end_of(editor)
            chunk += end
        self._chunks = deque([chunk] if chunk else [])

    def push(self, chunk: bytes) -> None:
        """A chunk has come; an empty one tells nothing."""
        if self._editor is not None:
            chunk = self._editor.edit(chunk)
        if not chunk:
            return
        if self._sink is None:
            self._chunks.append(chunk)
        else:
            try:
                has_room = self._sink.write(chunk)
            except Exception as error:
                self._sink = None
                self._fail(error)
                return
            self._passed_bytes += len(chunk)
            if self._passed_bytes >= self._window_bytes:
                self._grant_passed()
            if has_room:
                return
            self._sink = None
        self._wake()

    def end(self, error: Exception | None = None, chunk: bytes = b"") -> None:
        """The body is whole, with this chunk as its last, or breaks off."""
        if not self._is_over:
            if self._editor is not None and error is None:
                chunk = self._editor.edit(chunk)
                error, rest = _end_of(self._editor)
                chunk += rest
            if chunk:
                self._chunks.append(chunk)
            self._is_over, self._error = True, error
            self._wake()

    def _take(self) -> bytes:
        chunk = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._passed_bytes += len(chunk)
        if self._passed_bytes >= self._window_bytes:
            self._grant_passed()
        return chunk

    def _grant_passed(self) -> None:
        if not self._is_over:
            passed_bytes, self._passed_bytes = self._passed_bytes, 0
            self._grant(passed_bytes)

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, error: Exception) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)


def _end_of(editor: Editor) -> tuple[Exception | None, bytes]:
    """What the editor held back, or the error in the place of an end."""
    try:
        return None, editor.rest()
    except Exception as problem:  # the reader gets it
        return problem, b""
