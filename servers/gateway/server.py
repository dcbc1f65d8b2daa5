"""The front door's HTTP server: uvicorn on a socket that is bound already.

uvicorn writes no access log and no header of its own, speaks no WebSockets, and leaves signals to the platform. It does
TLS where there is a certificate; Starlette does CORS where origins are listed.
"""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any
from typing import Protocol as Interface

import uvicorn
from starlette.middleware.cors import CORSMiddleware

from configs.settings import Limits, LitportSettings
from servers.gateway.protocol import Protocol
from servers.gateway.request import Receive, Scope, Send
from servers.gateway.tls import check_tls
from servers.processes.pause import PauseClock


class Application(Interface):
    """An ASGI application whose `clock` the server ticks."""

    @property
    def clock(self) -> PauseClock:
        """When this process last came out of a pause."""
        ...

    async def __call__(self, scope: Scope, receive: Receive, send: Send, /) -> None:
        """Answer one request."""
        ...


class Server(uvicorn.Server):
    """uvicorn that leaves the signals alone: the platform drains before it stops.

    Raises UserError for a certificate or key that cannot be used.
    """

    def __init__(self, application: Application, settings: LitportSettings) -> None:
        cert_file, key_file = settings.server.tls_cert_file, settings.server.tls_key_file
        check_tls(settings.server)
        self._stopping = asyncio.Event()
        self._clock = application.clock
        self._protocol = type("Protocol", (Protocol,), {"limits": settings.limits})
        super().__init__(
            uvicorn.Config(
                _with_cors(application, settings.server.cors_origins),
                loop="none",
                http=self._protocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=2,
                ssl_certfile=cert_file,
                ssl_keyfile=key_file,
            )
        )

    def stop(self) -> None:
        """End: close the socket and the idle connections, and wait a moment for the requests in flight."""
        self.should_exit = True
        self._stopping.set()

    async def main_loop(self) -> None:
        """Set the date of the answers once a second, until `stop`; uvicorn's own loop wakes ten times as often.

        A tick that is late shows a pause.
        """
        while not await self.on_tick(0):
            self._clock.tick()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await self._stopping.wait()

    def reload(self, limits: Limits) -> None:
        """Hold connections to these limits from now on."""
        self._protocol.limits = limits  # type: ignore[attr-defined] # a subclass of Protocol

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Install no handlers."""
        yield


_EXPOSED = (
    "retry-after",
    "x-litport-cut-answer",
    "x-litport-ignored-fields",
    "x-litport-served-by",
    "x-litport-version",
    "x-request-id",
)


def _with_cors(application: Application, origins: list[str]) -> Any:
    if not origins:
        return application
    return CORSMiddleware(
        application,
        allow_origins=origins,
        allow_methods=["GET", "POST"],
        allow_headers=["*"],  # whatever a page asks for: official SDKs send headers of their own
        expose_headers=_EXPOSED,
    )


async def until_ended(serving: asyncio.Task[None], fatal: asyncio.Event) -> None:
    """Return when `fatal` is set, or the server that the task runs has ended."""
    failure = asyncio.create_task(fatal.wait())
    try:
        await asyncio.wait((failure, serving), return_when=asyncio.FIRST_COMPLETED)
    finally:
        failure.cancel()
