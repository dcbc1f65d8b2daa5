"""A server that does nothing as fast as it can, to measure the load generator's own ceiling.

    python -m benchmarks.load.null_server READ_AS EVENTS

It answers every POST at once with `EVENTS` parts, each written by itself, in the form that the generator reads, and
every GET with a list of one model, which other load tools ask for. Its first line of output is its port. It reads no
more of a request than its length.
"""

import asyncio
import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import cast

import uvloop

from servers.processes.interpreter import module_argv

_MODELS = b'{"object":"list","data":[{"id":"noop","object":"model"}]}'
_LISTING = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(_MODELS) + _MODELS


class NullServer(asyncio.Protocol):
    """One connection."""

    def __init__(self, parts: list[bytes]) -> None:
        self._parts = parts
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Answer each request that is complete."""
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].lower()
            if head.startswith(b"get "):
                self._buffer = self._buffer[end + 4 :]
                self._transport.write(_LISTING)
                continue
            length = int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0] or 0)
            if len(self._buffer) < end + 4 + length:
                return
            self._buffer = self._buffer[end + 4 + length :]
            self._write(0)

    def _write(self, number: int) -> None:
        self._transport.write(self._parts[number])
        if number + 1 < len(self._parts):
            asyncio.get_running_loop().call_soon(self._write, number + 1)


def parts(read_as: str, events: int) -> list[bytes]:
    """The pieces of one answer: its head, its parts in chunked encoding, its end."""
    usage = f'"usage":{{"prompt_tokens":1,"completion_tokens":{events},"total_tokens":1}}'
    if read_as == "whole":
        body = b"{" + usage.encode() + b"}"
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
        return [head + body]
    if read_as == "lines":
        lines = ['{"text":" word","token_ids":[1]}\n'] * (events - 1) + [f'{{"text":" word",{usage}}}\n']
    else:
        event = 'data: {"id":"cmpl-0","object":"text_completion","choices":[{"index":0,"text":" word"}]}\n\n'
        lines = [event] * events + [f'data: {{"choices":[],{usage}}}\n\n', "data: [DONE]\n\n"]
    chunks = [b"%x\r\n%s\r\n" % (len(line), line.encode()) for line in lines]
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    return [head + chunks[0], *chunks[1:-1], chunks[-1] + b"0\r\n\r\n"]


async def serve(read_as: str, events: int) -> None:
    """Listen on a free port of loopback until the process is ended."""
    answer = parts(read_as, events)
    server = await asyncio.get_running_loop().create_server(lambda: NullServer(answer), "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


@contextlib.contextmanager
def running(read_as: str, events: int) -> Iterator[str]:
    """The server in a process of its own, until the block ends; gives its address."""
    argv = module_argv("benchmarks.load.null_server", read_as, str(events))
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        finally:
            server.kill()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C comes here, too; the harness ends this process
    uvloop.run(serve(sys.argv[1], int(sys.argv[2])))
