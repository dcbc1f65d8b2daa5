"""The client of the children's servers, against a server that sends exactly the bytes that a test says."""

import asyncio
import contextlib
import re
import select
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import uvloop

from servers.engines.http_connection import HttpConnection
from servers.engines.stream import Stream

_OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
_END = b"(the end of the connection)"
_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class _Server:
    """Answers each request with the next of `answers`; one that is followed by `_END` is the last of its connection."""

    def __init__(self, *answers: bytes) -> None:
        self._answers = list(answers)
        self.requests: list[bytes] = []
        self.connections = 0
        self.left = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"content-length: (\d+)", head)
                self.requests.append(head + await reader.readexactly(int(length[1]) if length else 0))
                writer.write(self._answers.pop(0))
                await writer.drain()
                if self._answers[:1] == [_END]:
                    self._answers.pop(0)
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            self.left.set()
        finally:
            writer.close()


def _run(
    folder: Path, answers: tuple[bytes, ...], use: Callable[[HttpConnection, _Server], Awaitable[None]]
) -> _Server:
    async def test() -> _Server:
        server = _Server(*answers)
        listener = await asyncio.start_unix_server(server.serve, folder / "s")
        connection = HttpConnection(folder / "s")
        try:
            async with asyncio.timeout(5):
                await use(connection, server)
        finally:
            await connection.close()
            listener.close()
        return server

    return asyncio.run(test())


async def _get(connection: HttpConnection, method: str = "GET") -> tuple[int, bytes]:
    reply = await connection.send(method, "/a")
    return reply.status, await reply.read()


def test_a_request_is_one_message_and_its_connection_is_used_again(tmp_path: Path) -> None:
    async def use(connection: HttpConnection, _: _Server) -> None:
        reply = await connection.send("POST", "/p", b"body", {"x-a": "1"}, "q=%20")
        assert (reply.status, reply.headers) == (200, [(b"content-length", b"2")])
        assert await reply.read() == b"ok"
        assert await _get(connection) == (200, b"ok")

    server = _run(tmp_path, (_OK, _OK), use)
    assert server.connections == 1
    assert server.requests[0] == (
        b"POST /p?q=%20 HTTP/1.1\r\nhost: localhost\r\naccept-encoding: identity\r\naccept: */*\r\nx-a: 1\r\n"
        b"content-length: 4\r\n\r\nbody"
    )


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (_CHUNKED + b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", b"abc"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + _OK, b"ok"),
        (b"HTTP/1.1 200 OK\r\n\r\nto the end", b"to the end"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    ],
)
def test_each_way_to_say_where_a_body_ends_is_understood(tmp_path: Path, answer: bytes, body: bytes) -> None:
    async def use(connection: HttpConnection, _: _Server) -> None:
        assert (await _get(connection))[1] == body

    _run(tmp_path, (answer, _END), use)


def test_the_answer_to_a_head_has_a_length_and_no_body(tmp_path: Path) -> None:
    async def use(connection: HttpConnection, _: _Server) -> None:
        assert await _get(connection, "HEAD") == (200, b"")
        assert await _get(connection) == (200, b"ok")

    assert _run(tmp_path, (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n", _OK), use).connections == 2


@pytest.mark.parametrize(
    "answer",
    [
        _CHUNKED + b"5\r\nab",
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nab",
        b"HTTP/1.1 200",
        b"no HTTP at all\r\n\r\n",
        b"",
    ],
)
def test_an_answer_that_is_cut_or_no_http_is_an_error(tmp_path: Path, answer: bytes) -> None:
    async def use(connection: HttpConnection, _: _Server) -> None:
        with pytest.raises(OSError, match=r"closed|not HTTP"):
            await _get(connection, "POST")

    _run(tmp_path, (answer, _END), use)


def test_a_get_is_sent_again_when_the_idle_connection_was_closed_and_a_post_is_not(tmp_path: Path) -> None:
    async def use(connection: HttpConnection, server: _Server) -> None:
        assert await _get(connection) == (200, b"ok")
        assert await _get(connection) == (200, b"ok")  # the first try is answered with an end
        with pytest.raises(ConnectionResetError):
            await _get(connection, "POST")
        assert server.connections == 2

    _run(tmp_path, (_OK, b"", _END, _OK, b"", _END), use)


def test_a_server_that_leaves_after_a_stream_without_a_word_is_connected_to_anew(tmp_path: Path) -> None:
    llama = b"HTTP/1.1 200 OK\r\nServer: llama.cpp\r\nKeep-Alive: timeout=5, max=100\r\n"
    stream = llama + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"
    whole = llama + b"Content-Length: 1\r\n\r\nb"

    async def use(connection: HttpConnection, server: _Server) -> None:
        for answer, connections in ((b"a", 1), (b"b", 2), (b"a", 2), (b"b", 3)):
            assert await _get(connection, "POST") == (200, answer)
            assert server.connections == connections

    _run(tmp_path, (stream, whole, stream, whole), use)


@pytest.mark.parametrize("begins", [True, False])
def test_leaving_an_answer_or_its_request_closes_the_connection(tmp_path: Path, begins: bool) -> None:
    async def use(connection: HttpConnection, server: _Server) -> None:
        if begins:
            reply = await connection.send("POST", "/a")
            reply.close()
        else:
            task = asyncio.create_task(connection.send("POST", "/a"))
            while not server.requests:  # noqa: ASYNC110 # the server is in this loop
                await asyncio.sleep(0.001)
            task.cancel()
        await server.left.wait()

    _run(tmp_path, (_CHUNKED + b"1\r\na\r\n" if begins else b"HTTP/1.1 ",), use)


def test_a_slow_reader_holds_the_server_back(tmp_path: Path) -> None:
    size = 8 * 1024 * 1024
    body = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + bytes(size)

    async def use(connection: HttpConnection, _: _Server) -> None:
        reply = await connection.send("GET", "/a")
        stream = reply.chunks
        assert isinstance(stream, Stream)
        for _attempt in range(100):
            await asyncio.sleep(0.001)
        first = await anext(stream)
        assert len(first) < 1024 * 1024
        assert len(first) + len(await reply.read()) == size

    _run(tmp_path, (body,), use)


@pytest.mark.parametrize("headers", [{"x-a": "1\r\nx-b: 2"}, {"x-a": "1\nx-b: 2"}])
def test_a_header_of_two_lines_is_not_sent(tmp_path: Path, headers: dict[str, str]) -> None:
    async def use(connection: HttpConnection, server: _Server) -> None:
        with pytest.raises(ValueError, match="one line"):
            await connection.send("POST", "/a", headers=headers)
        assert server.connections == 0

    _run(tmp_path, (), use)


def test_a_process_that_does_not_listen_is_an_error_at_once(tmp_path: Path) -> None:
    async def test() -> None:
        connection = HttpConnection(tmp_path / "nobody")
        with pytest.raises(OSError):  # noqa: PT011 # whatever the system says
            await _get(connection)
        await connection.close()

    asyncio.run(test())


def test_a_connection_waits_while_the_servers_backlog_is_full(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener, contextlib.ExitStack() as clients:
        listener.bind(str(tmp_path / "s"))
        listener.listen(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                client = clients.enter_context(socket.socket(socket.AF_UNIX))
                client.setblocking(False)
                client.connect(str(tmp_path / "s"))

        def answer_the_last() -> None:
            while not select.select([connection := listener.accept()[0]], [], [], 0.1)[0]:
                connection.close()
            with connection:
                connection.recv(1000)
                connection.sendall(_OK)

        async def ask() -> bytes:
            loop = asyncio.get_running_loop()
            loop.call_later(0.1, lambda: loop.run_in_executor(None, answer_the_last))
            connection = HttpConnection(tmp_path / "s")
            reply = await connection.send("GET", "/")
            body = await reply.read()
            await connection.close()
            return body

        assert uvloop.run(ask()) == b"ok"  # the loop of the platform; asyncio's own takes it for connected
