"""The id of the request that vLLM's API server works on, in the lines that it logs meanwhile.

vLLM makes its own ids from ours (`chatcmpl-<id>`) but names them in few of its lines; an error in a stream has none.
vLLM loads this class by its option `--middleware`. Requests and answers pass unchanged.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from contextvars import ContextVar
from typing import Any

from servers.engines import child_logging
from servers.telemetry import tracing

_App = Callable[[MutableMapping[str, Any], Any, Any], Awaitable[None]]
_request_id: ContextVar[str] = ContextVar("request_id", default="")


class RequestIds:
    """ASGI middleware: notes the id of each request."""

    def __init__(self, app: _App) -> None:
        # Made at the server's first event, when vLLM and uvicorn have set up their logging.
        self._app = app
        child_logging.install(_request_id.get)
        tracing.quieten()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Handle one request."""
        if scope["type"] == "http":
            for name, value in scope["headers"]:
                if name == b"x-request-id":
                    _request_id.set(value.decode("latin-1"))
        await self._app(scope, receive, send)
