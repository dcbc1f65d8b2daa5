"""The page that Prometheus reads: all series at one address, by default on loopback, without a key.

It answers while models start, fail and drain; series that cannot be read at that moment are left out. Nothing is
stored between two requests.
"""

import socket
from collections.abc import Mapping

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from servers.metrics import children
from servers.models.model import Model


class Page:
    """Serves `registry` and the series of the models' processes at `/metrics` on the listening socket.

    An async context manager: the page answers within the block.
    """

    def __init__(self, listener: socket.socket, registry: CollectorRegistry, models: Mapping[str, Model]) -> None:
        self._listener = listener
        self._registry = registry
        self._models = models
        app = web.Application()
        app.router.add_get("/metrics", self._get)
        self._runner = web.AppRunner(app, access_log=None)

    async def __aenter__(self) -> None:
        await self._runner.setup()
        await web.SockSite(self._runner, self._listener).start()

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _get(self, _: web.Request) -> web.Response:
        series = await children.pages(self._models)
        body = generate_latest(self._registry) + series.encode()
        return web.Response(body=body, headers={"content-type": CONTENT_TYPE_PLAIN_0_0_4})
