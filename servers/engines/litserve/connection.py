"""The connection to a LitAPI's processes: to the workers of the host, or to LitServe's own server."""

import json
from collections.abc import Mapping
from pathlib import Path

from servers.engines.connection import Reply
from servers.engines.http_connection import HttpConnection
from servers.engines.litserve.host.answer import Policy
from servers.engines.litserve.host.connection import HostConnection


class ApiConnection:
    """Implements `servers.engines.connection.Connection`. The card, once it is there, says which of the two it is.

    LitServe's server listens on `socket`. Where it has no series, there is an empty page at `/metrics`.
    """

    def __init__(self, card_file: Path, socket: Path, policy: Policy, queue_timeout_s: float | None) -> None:
        self._card_file = card_file
        self._socket = socket
        self._policy = policy
        self._queue_timeout_s = queue_timeout_s
        self._chosen: HostConnection | HttpConnection | None = None

    @property
    def restarts(self) -> int:
        """Workers of the host that were replaced."""
        return 0 if self._chosen is None else self._chosen.restarts

    @property
    def is_complete(self) -> bool:
        """See `Connection`."""
        return self._chosen is not None and self._chosen.is_complete

    @property
    def is_at_rest(self) -> bool:
        """Whether a prediction can be asked for; on the host only while a worker is ready and none works."""
        return self._chosen.is_at_rest if isinstance(self._chosen, HostConnection) else True

    async def send(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None, query: str = ""
    ) -> Reply:
        """See `Connection`. Raises OSError as well while there is no card."""
        chosen = self._chosen or self._choose()
        reply = await chosen.send(method, path, body, headers, query)
        if path == "/metrics" and reply.status == 404:
            reply.close()
            return Reply.whole(200, [(b"content-type", b"text/plain")], b"")
        return reply

    async def close(self) -> None:
        """See `Connection`."""
        if self._chosen is not None:
            await self._chosen.close()

    def _choose(self) -> HostConnection | HttpConnection:
        if json.loads(self._card_file.read_text())["serving"] == "host":
            self._chosen = HostConnection(self._card_file, self._policy, self._queue_timeout_s)
        else:
            self._chosen = HttpConnection(self._socket)
        return self._chosen
