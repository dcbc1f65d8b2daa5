"""The server of the page. The page loads nothing from other hosts and sends nothing to them.

By default Gradio stores inputs (and so keys) in the browser and on disk for its history and its links, and it fetches
files from other hosts. All of that is switched off or rejected here.
"""

import asyncio
import contextlib
import ipaddress
import os
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_HEADERS = {
    # Gradio's page has inline scripts and styles, and it makes functions from text.
    "content-security-policy": "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' blob:; "
    "media-src 'self' blob:; worker-src 'self' blob:; object-src 'none'; frame-ancestors 'none'; form-action 'self'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
_FORBIDDEN = ("/gradio_api/deep_link", "/gradio_api/file=http", "/gradio_api/proxy=", "/gradio_api/runs", "/monitoring")
_LOCAL_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})


def run(url: str, key: str | None, host: str, port: int) -> int:
    """Serve the page for the platform at `url` until SIGINT or SIGTERM; the exit status is 2 if it cannot listen.

    `key` is used for visitors who enter none, but only if `host` is loopback. Without Gradio: ModuleNotFoundError.
    """
    is_local = _is_loopback(host)
    if key and not is_local:
        print(f"the API key is not used, as {host} lets others in: the page asks each of them for one", file=sys.stderr)
        key = None
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=128)
    except OSError as problem:
        reason = str(problem.strerror or problem).partition(" (")[0]
        print(f"litport: --port: cannot listen on {host} port {port}: {reason}", file=sys.stderr)
        return 2
    with listener, tempfile.TemporaryDirectory(prefix="litport-playground-") as folder:
        os.environ.update(GRADIO_ANALYTICS_ENABLED="False", GRADIO_TEMP_DIR=folder)
        guard = Guard(application(url, key), _LOCAL_NAMES if is_local else None)
        name = f"[{host}]" if ":" in host else host
        print(f"playground at http://{name}:{listener.getsockname()[1]} for the platform at {url}", flush=True)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # uvicorn raises it again at its end
        _serve(guard, listener)
    return 0


def _serve(guard: "Guard", listener: socket.socket) -> None:
    import uvicorn

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            guard.end()  # an open page keeps a stream open, for which uvicorn would wait
            await super().shutdown(sockets)

    Server(uvicorn.Config(guard, log_level="warning", access_log=False, timeout_graceful_shutdown=2)).run([listener])


def application(url: str, key: str | None) -> App:
    """The page as an ASGI application."""
    import fastapi
    import gradio

    from clients.playground import style
    from clients.playground.page import Page
    from clients.playground.platform import Platform

    platform = Platform(url, key)

    @contextlib.asynccontextmanager
    async def lifespan(_: fastapi.FastAPI) -> AsyncIterator[None]:
        yield
        await platform.close()

    blocks = Page(platform).blocks
    blocks.queue(default_concurrency_limit=None, api_open=False)
    inner = fastapi.FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    options: dict[str, Any] = {"footer_links": [], "run_history": False, "show_error": False, "ssr_mode": False}
    options |= {"mcp_server": False, "enable_monitoring": False, "max_file_size": "64mb"}
    gradio.mount_gradio_app(inner, blocks, "/", theme=style.theme(), css=style.CSS, **options)
    return inner


class Guard:
    """An application with our headers, without the routes that store or fetch, and only under these host names.

    None as `names` allows any host name.
    """

    def __init__(self, app: App, names: frozenset[str] | None) -> None:
        self._app = app
        self._names = names
        self._running: set[asyncio.Task[Any]] = set()

    def end(self) -> None:
        """End the answers that are still being sent."""
        for task in self._running:
            task.cancel()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
        is_foreign = self._names is not None and host.rpartition(":")[0] not in self._names and host not in self._names
        if is_foreign or scope["path"].lower().startswith(_FORBIDDEN):
            await send({"type": "http.response.start", "status": 403, "headers": [(b"content-length", b"0")]})
            return await send({"type": "http.response.body"})
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        try:
            await self._app(scope, receive, _with_headers(send))
        except asyncio.CancelledError:
            with contextlib.suppress(RuntimeError):  # the answer has ended already
                await send({"type": "http.response.body"})
        finally:
            self._running.discard(task)


def _with_headers(send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
            message["headers"] = [*message.get("headers", []), *headers]
        await send(message)

    return send_with_headers


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
