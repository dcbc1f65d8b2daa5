"""The front door's HTTP server: uvicorn on a socket that is bound already.

uvicorn is configured here for being proxied through: no access log, no header of its own, no WebSockets, and signals
left to us.
"""

import contextlib
from collections.abc import Iterator

import uvicorn

from configs.settings import Limits
from servers.gateway.front_door import FrontDoor
from servers.gateway.protocol import Protocol

# Longer than clients keep a connection that is at rest (httpx and the OpenAI SDK: 5 s), so that a request is never sent
# into one that is being closed.
_KEEP_ALIVE_S = 75


class Server(uvicorn.Server):
    """uvicorn that leaves the signals alone: the platform drains before it stops."""

    def __init__(self, front_door: FrontDoor, limits: Limits) -> None:
        super().__init__(
            uvicorn.Config(
                front_door,
                loop="none",
                http=type("Protocol", (Protocol,), {"limits": limits}),
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=2,
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Install no handlers."""
        yield
