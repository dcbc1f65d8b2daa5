"""The connection to a worker host: the requests of an instance, as the dispatcher takes them."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from typing import Any

from servers.engines.base import TENSOR_PATH
from servers.engines.connection import Reply
from servers.engines.litserve.host import metrics
from servers.engines.litserve.host.answer import HostRequest, NoWorkerError, Policy, QueueTimeoutError
from servers.engines.litserve.host.dispatcher import Dispatcher

# As long as LitServe lets a request wait in its queue.
_QUEUE_TIMEOUT_S = 30.0


class HostConnection:
    """Implements `servers.engines.connection.Connection`. Requests to the API go to the workers; the rest is known.

    `card_file` is there once the workers listen. `queue_timeout_s` is how long a request may wait for a worker.
    """

    def __init__(self, card_file: Path, policy: Policy, queue_timeout_s: float | None) -> None:
        self._card_file = card_file
        self._policy = policy
        self._queue_timeout_s = _QUEUE_TIMEOUT_S if queue_timeout_s is None else queue_timeout_s
        self._card: Mapping[str, Any] = {}
        self._dispatcher: Dispatcher | None = None
        self._was_complete = False

    @property
    def restarts(self) -> int:
        """Workers that were replaced."""
        return 0 if self._dispatcher is None else self._dispatcher.restarts

    @property
    def is_complete(self) -> bool:
        """Whether every worker is set up."""
        return self._dispatcher is not None and self._dispatcher.is_complete

    @property
    def is_at_rest(self) -> bool:
        """Whether a worker is ready, and none works on anything."""
        return self._dispatcher is not None and self._dispatcher.is_at_rest

    async def send(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None, query: str = ""
    ) -> Reply:
        """See `Connection`."""
        dispatcher = self._open()
        if path not in (self._card["api_path"], TENSOR_PATH):
            return await self._tell(dispatcher, method, path)
        headers = headers or {}
        request = HostRequest(
            request_id=headers.get("x-request-id", ""),
            content_type=headers.get("content-type", ""),
            body=body,
            headers=[field for field in headers.items() if field[0] != "content-type"],
            query=query.encode("latin-1"),
            method=method,
            deadline_s=time.monotonic() + self._queue_timeout_s,
            has_tensors=path == TENSOR_PATH,
        )
        try:
            response = await dispatcher.send(request)
        except QueueTimeoutError:
            return _reply(504, "application/json", b'{"detail":"Request timed out"}')
        fields = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in response.headers]
        if response.parts is not None:
            return Reply(response.status, fields, response.parts, response.parts.close)
        if response.status != HTTPStatus.NO_CONTENT:
            fields.append((b"content-length", str(len(response.body)).encode()))
        return Reply.whole(response.status, fields, response.body)

    async def close(self) -> None:
        """See `Connection`."""
        if self._dispatcher is not None:
            await self._dispatcher.close()

    def _open(self) -> Dispatcher:
        """Raises OSError while the host has not written its card."""
        if self._dispatcher is None:
            self._card = json.loads(self._card_file.read_text())
            policy = self._policy
            if policy.batch_timeout_s is None:
                policy = replace(policy, batch_timeout_s=self._card["batch_timeout_s"])
            self._dispatcher = Dispatcher([Path(path) for path in self._card["sockets"]], policy)
        return self._dispatcher

    async def _is_healthy(self, dispatcher: Dispatcher) -> bool:
        """At first whether all workers are set up; later one may be in replacement."""
        self._was_complete = self._was_complete or dispatcher.is_complete
        return self._was_complete and await dispatcher.ping()

    async def _tell(self, dispatcher: Dispatcher, method: str, path: str) -> Reply:
        match method, path:
            case "GET", "/health":
                is_healthy = await self._is_healthy(dispatcher)
                return _reply(200 if is_healthy else 503, "text/plain", b"ok" if is_healthy else b"not ready")
            case "GET", "/metrics" if dispatcher.is_gone:
                raise NoWorkerError("the model's processes are gone")
            case "GET", "/metrics":
                return _reply(200, metrics.CONTENT_TYPE, metrics.page(dispatcher.totals))
            case "GET", "/openapi.json":
                return _reply(200, "application/json", json.dumps(self._card["openapi"]).encode())
        return _reply(404, "application/json", b'{"detail":"Not Found"}')


def _reply(status: int, content_type: str, body: bytes) -> Reply:
    headers: Sequence[tuple[bytes, bytes]] = (
        (b"content-type", content_type.encode()),
        (b"content-length", str(len(body)).encode()),
    )
    return Reply.whole(status, headers, body)
