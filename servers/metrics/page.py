"""The page that Prometheus reads: everything on one address, by default this machine's own, without a key.

It answers while models start, die and drain: what cannot be had at the moment is not on it. It refuses to keep
anything: each reading is of its moment.
"""

import logging
import socket
from collections.abc import Mapping

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from servers.metrics import children
from servers.models.model import Model

_log = logging.getLogger("litport.metrics")


class Page:
    """Serves `registry` and the series of the models' processes at `/metrics` on the listening socket.

    For `async with`: it answers within the block.
    """

    def __init__(self, listener: socket.socket, registry: CollectorRegistry, models: Mapping[str, Model]) -> None:
        self._listener = listener
        self._registry = registry
        self._models = models
        app = web.Application()
        app.router.add_get("/metrics", self._tell)
        self._runner = web.AppRunner(app, access_log=None)

    async def __aenter__(self) -> None:
        await self._runner.setup()
        await web.SockSite(self._runner, self._listener).start()

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _tell(self, _: web.Request) -> web.Response:
        theirs = await children.pages(self._models)
        body = generate_latest(self._registry) + theirs.encode()
        return web.Response(body=body, headers={"content-type": CONTENT_TYPE_PLAIN_0_0_4})
