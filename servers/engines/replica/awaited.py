"""A place for replicas that are not there yet: a gateway learns their addresses while it runs."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from servers.engines.connection import Connection, NotTakenError, Reply
from servers.engines.replica.engine import ReplicaEngine

ADDRESS = "ray:"
"""In `instances`, stands for the replicas that a gateway finds by itself."""


@dataclass
class News:
    """What is known of the replicas."""

    text: str = "no replica of it is known yet"


@dataclass(frozen=True)
class AwaitedReplica(ReplicaEngine):
    """Takes no request, and is never ready, for a reason in `news`."""

    news: News

    def connect(self, socket: Path) -> Connection:  # noqa: ARG002 # of the protocol
        """A way to nowhere."""
        return _NoConnection(self.news)


class _NoConnection:
    """See `Connection`."""

    restarts = 0
    is_complete = True

    def __init__(self, news: News) -> None:
        self._news = news

    async def send(
        self,
        method: str,  # noqa: ARG002 # of the protocol
        path: str,  # noqa: ARG002
        body: bytes = b"",  # noqa: ARG002
        headers: Mapping[str, str] | None = None,  # noqa: ARG002
        query: str = "",  # noqa: ARG002
    ) -> Reply:
        """Raises NotTakenError."""
        raise NotTakenError(self._news.text)

    async def close(self) -> None:
        """Nothing is open."""
