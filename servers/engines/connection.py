"""The connection to an instance: how requests reach its process, and how the answers come back."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import aiohttp
from yarl import URL

# What `Connection.send` and the chunks of a reply raise when there is no answer, or no whole one.
CONNECTION_LOST = (aiohttp.ClientError, OSError)

# Shorter than the 5 s of uvicorn in the children, so that the front door is the first to close an idle connection.
_KEEP_ALIVE_S = 3.0


@dataclass(frozen=True)
class Reply:
    """An answer as it comes: headers as they were sent, and the chunks of the body. `close` it, read or not."""

    status: int
    headers: Sequence[tuple[bytes, bytes]]
    chunks: AsyncIterator[bytes]
    close: Callable[[], None]

    async def read(self) -> bytes:
        """The whole body; closes the reply. Raises CONNECTION_LOST."""
        try:
            return b"".join([chunk async for chunk in self.chunks])
        finally:
            self.close()


class Connection(Protocol):
    """What the supervisor, the front door and the metrics page need of the way to an instance."""

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
