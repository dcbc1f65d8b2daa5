"""The connection to an instance: how requests reach its process, and how the answers come back."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

# What `Connection.send` and the chunks of a reply raise when there is no answer, or no whole one.
CONNECTION_LOST = (OSError,)


class NotTakenError(ConnectionResetError):
    """No process has taken the request, and none will."""


class ProcessDiedError(ConnectionResetError):
    """The process elsewhere ended that had the request; its replica says so, and lives."""


class AnswerBrokenError(Exception):
    """An answer that has begun breaks off although the process lives; the message says why."""


@dataclass(slots=True)
class TokenCount:
    """The tokens that a process counted for a request; None until it says so.

    `cut_at` is the number of output tokens that the request allowed, where the end of the context came before.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cut_at: int | None = None


@dataclass(slots=True)
class Reply:
    """An answer as it comes: headers as they were sent, and the chunks of the body. `close` it, read or not.

    `body` is the whole body where it is there already; the chunks are the same bytes. Reading the chunks raises
    CONNECTION_LOST or AnswerBrokenError. Chunks that are a `servers.engines.stream.Stream` cost the front door least.
    `tokens` is the process's own count, where it has one beside the answer; in a stream it is complete with the last
    chunk.
    """

    status: int
    headers: Sequence[tuple[bytes, bytes]]
    chunks: AsyncIterator[bytes]
    close: Callable[[], None]
    body: bytes | None = None
    tokens: TokenCount | None = None

    @classmethod
    def whole(cls, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> Self:
        """An answer whose body is there; it holds nothing open."""
        return cls(status, headers, _once(body), lambda: None, body)

    async def read(self) -> bytes:
        """The whole body; closes the reply. Raises as the chunks do."""
        try:
            return b"".join([chunk async for chunk in self.chunks])
        finally:
            self.close()


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body


class Connection(Protocol):
    """What the supervisor, the front door and the metrics page need of the way to an instance."""

    @property
    def restarts(self) -> int:
        """How often a process behind it was replaced while the instance went on."""
        ...

    @property
    def is_complete(self) -> bool:
        """Whether all processes behind it are up, and none is in replacement."""
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
