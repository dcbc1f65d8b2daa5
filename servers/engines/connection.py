"""The connection to an instance: how requests reach its process, and how the answers come back."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import aiohttp
from yarl import URL

# What `Connection.send` and the chunks of a reply raise when there is no answer, or no whole one.
CONNECTION_LOST = (aiohttp.ClientError, OSError)


class NotTakenError(ConnectionResetError):
    """No process has taken the request, and none will."""


class AnswerBrokenError(Exception):
    """An answer that has begun breaks off although the process lives; the message says why."""


# Shorter than the 5 s of uvicorn in the children, so that the front door is the first to close an idle connection.
_KEEP_ALIVE_S = 3.0


@dataclass(frozen=True)
class Reply:
    """An answer as it comes: headers as they were sent, and the chunks of the body. `close` it, read or not.

    `body` is the whole body where it is there already; the chunks are the same bytes. Reading the chunks raises
    CONNECTION_LOST or AnswerBrokenError.
    """

    status: int
    headers: Sequence[tuple[bytes, bytes]]
    chunks: AsyncIterator[bytes]
    close: Callable[[], None]
    body: bytes | None = None

    async def read(self) -> bytes:
        """The whole body; closes the reply. Raises as the chunks do."""
        try:
            return b"".join([chunk async for chunk in self.chunks])
        finally:
            self.close()


class Connection(Protocol):
    """What the supervisor, the front door and the metrics page need of the way to an instance."""

    @property
    def restarts(self) -> int:
        """How often a process behind it was replaced while the instance went on."""
        ...

    async def send(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None, query: str = ""
    ) -> Reply:
        """Send a request and return when the head of the answer is there.

        Closing the reply, or cancelling this call, cancels the request. Raises CONNECTION_LOST.
        """
        ...

    async def close(self) -> None:
        """Close the connection, and with it the requests in flight."""
        ...


class HttpConnection:
    """HTTP on a Unix socket: one connection a request, without a limit; bodies and cookies pass unchanged."""

    restarts = 0  # when a process behind it ends, so does the instance

    def __init__(self, socket: Path) -> None:
        self._session = aiohttp.ClientSession(
            "http://localhost",
            connector=aiohttp.UnixConnector(str(socket), limit=0, keepalive_timeout=_KEEP_ALIVE_S),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=5),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            headers={"accept-encoding": "identity"},  # compression costs more than the socket
        )

    async def send(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None, query: str = ""
    ) -> Reply:
        """See `Connection`."""
        url = URL.build(path=path, query_string=query, encoded=True)
        response = await self._session.request(method, url, data=body, headers=headers, allow_redirects=False)
        return Reply(response.status, response.raw_headers, response.content.iter_any(), response.release)

    async def close(self) -> None:
        """See `Connection`."""
        await self._session.close()
