"""HTTP to the server of an instance, on its Unix socket or at an address.

A client of its own, since a general one spends more on an event of a stream than everything else in the front door
together: bodies are not decoded, there are no redirects, cookies or limits, and the parser is uvicorn's.
"""

import asyncio
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httptools

from servers.engines.connection import NotTakenError, Reply
from servers.engines.stream import Stream

# Shorter than the 5 s of uvicorn in the children, so that the front door is the first to leave an idle connection.
_KEEP_ALIVE_S = 3.0
_CONNECT_TIMEOUT_S = 5.0
_BACKLOG_WAIT_S = 0.005
# The Server header of llama.cpp, which closes a connection after each streamed answer although its head says that it
# stays open (b11434); a request that followed at once was lost in the end of the connection.
_LEAVES_AFTER_STREAM = b"llama.cpp"
# How much of an answer is held for a slow client before its process is held back.
_BUFFER_BYTES = 128 * 1024
_WINDOW_BYTES = 32 * 1024
# A longer body is not copied to stand behind its head.
_SMALL_BYTES = 64 * 1024


@dataclass(frozen=True)
class Address:
    """A server that is reached over TCP; `authority` is its Host header, and `tls` None is plain HTTP."""

    host: str
    port: int
    authority: str
    tls: ssl.SSLContext | None = None


class HttpConnection:
    """One connection a request, without a limit; bodies and cookies pass unchanged. For one event loop."""

    restarts = 0  # when a process behind it ends, so does the instance
    is_complete = True

    def __init__(self, place: Path | Address) -> None:
        self._place = place
        self._authority = place.authority if isinstance(place, Address) else "localhost"
        self._idle: list[_Channel] = []
        self._channels: set[_Channel] = set()
        self._is_closed = False

    async def send(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None, query: str = ""
    ) -> Reply:
        """See `servers.engines.connection.Connection`. Raises NotTakenError where nobody listens."""
        head = _head(self._authority, method, f"{path}?{query}" if query else path, headers or {}, len(body))
        channel = self._reuse()
        if channel is not None and method == "GET":
            try:
                return await channel.request(method, head, body)
            except ConnectionResetError:  # it may have been closed meanwhile, and a GET can be sent again
                channel = None
        return await (channel or await self._connect()).request(method, head, body)

    async def close(self) -> None:
        """See `servers.engines.connection.Connection`."""
        self._is_closed = True
        for channel in list(self._channels):
            channel.abort()
        await asyncio.sleep(0)

    def _reuse(self) -> "_Channel | None":
        oldest_s = time.monotonic() - _KEEP_ALIVE_S
        while self._idle:
            channel = self._idle.pop()
            if channel.idle_since_s > oldest_s and not channel.is_closing:
                return channel
            channel.abort()
        return None

    async def _connect(self) -> "_Channel":
        if self._is_closed:
            raise ConnectionResetError("the connection is closed")
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                return await self._open()
        except OSError as problem:
            reason = getattr(problem, "verify_message", "") or problem.strerror or str(problem) or "it does not answer"
            raise NotTakenError(f"{self._authority} cannot be reached: {reason}") from problem

    async def _open(self) -> "_Channel":
        loop, place = asyncio.get_running_loop(), self._place
        if isinstance(place, Address):
            _, channel = await loop.create_connection(self._make_channel, place.host, place.port, ssl=place.tls)
            return channel
        while True:
            try:
                _, channel = await loop.create_unix_connection(self._make_channel, str(place))
                return channel
            except BlockingIOError:  # its backlog is full: llama.cpp's holds five connections
                await asyncio.sleep(_BACKLOG_WAIT_S)

    def _make_channel(self) -> "_Channel":
        return _Channel(self._idle, self._channels)


class _Channel(asyncio.Protocol):
    """One connection to the server: idle, or with one request. It puts itself among the idle ones after an answer."""

    def __init__(self, idle: "list[_Channel]", channels: "set[_Channel]") -> None:
        self.idle_since_s = 0.0
        self._all_idle = idle
        self._channels = channels
        self._transport: Any = None
        self._bodies: list[bytes] = []
        self.on_body = self._bodies.append  # for the parser; with a function around it an event would cost a call more
        self._parser = httptools.HttpResponseParser(self)
        self._reply: asyncio.Future[Reply] | None = None
        self._stream: Stream | None = None
        self._method = ""
        self._headers: list[tuple[bytes, bytes]] = []
        self._held_bytes = 0
        self._is_paused = False
        self._may_stay = False
        self._ends_with_connection = False
        self._is_chunked = False
        self._leaves_after_stream = False
        self._is_whole = False

    @property
    def is_closing(self) -> bool:
        """Whether no request can be sent any more."""
        return bool(self._transport.is_closing())

    async def request(self, method: str, head: bytes, body: bytes) -> Reply:
        """Send a request; the answer when its head is there. Raises OSError."""
        self._method = method
        self._reply = asyncio.get_running_loop().create_future()
        if len(body) > _SMALL_BYTES:
            self._transport.write(head)
            self._transport.write(body)
        else:
            self._transport.write(head + body)
        try:
            return await self._reply
        except asyncio.CancelledError:
            self.abort()
            raise

    def abort(self) -> None:
        """Close the connection, and with it the request that it has."""
        if self._transport is not None:
            self._transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self._transport = transport
        self._channels.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        """The end of an answer without a length, or of the process."""
        self._channels.discard(self)
        if self in self._all_idle:
            self._all_idle.remove(self)
        if self._stream is not None and self._ends_with_connection and error is None:
            self._end(None)
        else:
            self._end(ConnectionResetError("the process closed the connection before its answer was whole"))

    def data_received(self, data: bytes) -> None:
        """A part of an answer. The chunks that came together are passed on together."""
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as problem:
            self._end(ConnectionAbortedError(f"the process sent something that is not HTTP: {problem}"))
            self.abort()
            return
        bodies, stream = self._bodies, self._stream
        if self._is_whole:
            chunk = b"".join(bodies)
            bodies.clear()
            self._finish(chunk)
        elif bodies and stream is not None:
            chunk = bodies[0] if len(bodies) == 1 else b"".join(bodies)
            bodies.clear()
            self._held_bytes += len(chunk)
            stream.push(chunk)
            if self._held_bytes > _BUFFER_BYTES and not self._is_paused:
                self._is_paused = True
                self._transport.pause_reading()

    # httptools

    def on_message_begin(self) -> None:
        """An answer begins; one that nobody asked for is an error."""
        if self._reply is None or self._stream is not None:
            raise ConnectionAbortedError("an answer without a request")
        self._headers, self._ends_with_connection, self._is_chunked = [], True, False

    def on_header(self, name: bytes, value: bytes) -> None:
        """One field."""
        self._headers.append((name, value))
        name = name.lower()
        if name in (b"content-length", b"transfer-encoding"):
            self._ends_with_connection = False
            self._is_chunked = name == b"transfer-encoding"
        elif name == b"server":
            self._leaves_after_stream = value == _LEAVES_AFTER_STREAM

    def on_headers_complete(self) -> None:
        """The head is there."""
        status = self._parser.get_status_code()
        if status < 200:  # informational; the answer follows
            return
        leaves = self._is_chunked and self._leaves_after_stream
        self._may_stay = self._parser.should_keep_alive() and not leaves
        stream = self._stream = Stream(self._leave, self._grant, _WINDOW_BYTES)
        if self._reply is not None and not self._reply.done():
            self._reply.set_result(Reply(status, self._headers, stream, stream.close))
        if self._method == "HEAD":  # the parser waits for the body that its length announces
            self._may_stay, self._is_whole = False, True

    def on_message_complete(self) -> None:
        """The answer is whole."""
        self._is_whole = self._stream is not None

    # The stream

    def _leave(self) -> None:
        self.abort()

    def _grant(self, size: int) -> None:
        self._held_bytes -= size
        if self._is_paused and self._held_bytes <= _BUFFER_BYTES:
            self._is_paused = False
            self._transport.resume_reading()

    def _finish(self, chunk: bytes) -> None:
        self._end(None, chunk)
        self._is_whole, self._held_bytes = False, 0
        if self._is_paused:
            self._is_paused = False
            self._transport.resume_reading()
        if self._may_stay and not self.is_closing:
            self.idle_since_s = time.monotonic()
            self._all_idle.append(self)
        else:
            self.abort()

    def _end(self, error: Exception | None, chunk: bytes = b"") -> None:
        reply, self._reply = self._reply, None
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.end(error, chunk)
        elif reply is not None and not reply.done():
            reply.set_exception(error or ConnectionResetError("no answer"))


def _head(authority: str, method: str, target: str, headers: Mapping[str, str], size: int) -> bytes:
    """The head of a request. Raises ValueError for what would be more than one."""
    lines = [f"{method} {target} HTTP/1.1", f"host: {authority}", "accept-encoding: identity"]
    if "accept" not in headers:
        lines.append("accept: */*")
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if size or method != "GET":
        lines.append(f"content-length: {size}")
    head = "\r\n".join(lines)
    if head.count("\n") != len(lines) - 1:
        raise ValueError("expected a path and headers of one line each")
    return f"{head}\r\n\r\n".encode("latin-1")
