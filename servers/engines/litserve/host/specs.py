"""LitServe's specs on the host: what they ask of a LitServer is given to them by `SpecServer`.

A spec has endpoints of its own, which put requests into a queue and wait for answers in a buffer, as in LitServe's API
server. They run here on the worker's loop, unchanged. Relied on, beside what LitServe documents:

- `LitSpec.endpoints`, `setup(server)`, `_server`, `response_queue_id`, and optionally `populate_context`, `as_async`;
- of the server, `response_buffer`, `_get_request_queue(path)`, `data_streamer`, `_callback_runner.trigger_event`,
  `active_requests`;
- what an endpoint puts into the queue, (queue id, id, time, request), and what it finds in the buffer: an object with
  `event` and either `response` or `response_queue`, filled with pairs of a value and a status of `LitAPIStatus`.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import msgspec
from fastapi import FastAPI, HTTPException
from litserve.callbacks import CallbackRunner
from litserve.utils import LitAPIStatus

from servers.engines.litserve.host.encode import Encode
from servers.engines.litserve.host.exchange import Exchange, current
from servers.engines.litserve.host.failure import INTERNAL_ERROR, Failure, RefusalError
from servers.engines.litserve.host.route import LONG_WAY
from servers.engines.litserve.host.work import Work

_decode_json = msgspec.json.Decoder().decode
Submit = Callable[[Work, Exchange], None]


class SpecServer:
    """What a spec sees of its server; `submit` gets the work of each request."""

    active_requests = None

    def __init__(
        self, api: Any, loop: asyncio.AbstractEventLoop, submit: Submit, callbacks: CallbackRunner | None = None
    ) -> None:
        self.response_buffer: dict[Any, Any] = {}
        self._callback_runner = callbacks or CallbackRunner([])
        self._is_stream = bool(api.stream)
        self._loop = loop
        self._submit = submit
        self.app = FastAPI()
        spec = api.spec
        spec.setup(self)
        spec._server = self
        spec.response_queue_id = 0
        for path, endpoint, methods in spec.endpoints:
            self.app.add_api_route(path, endpoint=endpoint, methods=methods)

    def _get_request_queue(self, _path: str) -> "SpecServer":
        return self

    def put(self, item: tuple[Any, Any, float, Any]) -> None:
        """An endpoint has a request for the API."""
        _, uid, _, value = item
        exchange = current.get()
        assert exchange is not None, "a spec asked outside of a request"
        reply = SpecReply(self, uid, exchange, getattr(value, "dimensions", None))
        work = Work(value, reply, exchange.ticket.request)
        exchange.ticket.add(work)
        self._submit(work, exchange)

    put_nowait = put

    async def data_streamer(
        self, queue: deque[tuple[Any, str]], data_available: asyncio.Event, send_status: bool = False
    ) -> AsyncIterator[Any]:
        """The parts of an answer as they come."""
        while True:
            await data_available.wait()
            while queue:
                value, status = queue.popleft()
                if status == LitAPIStatus.FINISH_STREAMING:
                    return
                if send_status:
                    yield value, status
                elif status != LitAPIStatus.ERROR:
                    yield value
                if status == LitAPIStatus.ERROR:
                    return
            data_available.clear()

    def answer(self, uid: Any, value: Any, status: str) -> None:
        """From any thread: the API's answer, or a part of it."""
        self._loop.call_soon_threadsafe(self._fill, uid, value, status)

    def _fill(self, uid: Any, value: Any, status: str) -> None:
        item = self.response_buffer.get(uid)
        if item is None:
            return
        if self._is_stream:
            item.response_queue.append((value, status))
            if status != LitAPIStatus.OK:
                del self.response_buffer[uid]  # LitServe keeps it for ever
        else:
            item.response = (value, status)
        item.event.set()


class ShortSpec:
    """The way around FastAPI for a spec that allows it: its `request_type`, a pydantic model, and its `render`.

    `render` makes of a request and of what the API answers the JSON that the endpoint would send. FastAPI and the
    endpoint, which run in another thread than the API, took a fiftieth of the processor time of an embedding.
    """

    def __init__(self, spec: Any) -> None:
        self._request_type = spec.request_type
        self._render = spec.render

    def parse(self, media_type: str, body: bytes) -> Any:
        """What the API gets, or LONG_WAY; `media_type` is in lower case, without parameters."""
        if media_type != "application/json":
            return LONG_WAY
        try:
            return self._request_type.model_validate(_decode_json(body))
        except Exception:  # as in Route
            return LONG_WAY

    def encode_for(self, value: Any) -> Encode:
        """The encoder of the answer to this request."""
        return partial(self._render, value)

    @staticmethod
    def of(spec: Any) -> "ShortSpec | None":
        """The short way of this spec; None for one without."""
        return ShortSpec(spec) if hasattr(spec, "request_type") and hasattr(spec, "render") else None


class SpecReply:
    """Answers to a spec's endpoint. `dimensions` is how many numbers vectors shall have, if the request says so."""

    def __init__(self, server: SpecServer, uid: Any, exchange: Exchange, dimensions: int | None) -> None:
        self._server = server
        self._uid = uid
        self._exchange = exchange
        self._dimensions = dimensions

    def whole(self, value: Any) -> None:
        """The endpoint gets the value as it is. Raises RefusalError for vectors of a length that nobody asked for."""
        if self._dimensions is not None:
            _check_dimensions(value, self._dimensions)
        self._server.answer(self._uid, value, LitAPIStatus.OK)

    def part(self, value: Any) -> None:
        """A part; it waits for no client, since a spec may join the parts of several works."""
        self._server.answer(self._uid, value, LitAPIStatus.OK)

    def finish(self) -> None:
        """No more parts."""
        self._server.answer(self._uid, "", LitAPIStatus.FINISH_STREAMING)

    async def room(self) -> None:
        """There always is."""

    def attach(self, task: asyncio.Task[None]) -> None:
        """End this task when the request is cancelled."""
        self._exchange.ticket.attach(task)

    def flush(self) -> None:
        """Everything is sent already."""

    def fail(self, failure: Failure) -> None:
        """The endpoint gets an HTTPException; the exchange knows the status for an answer that has not begun."""
        self._exchange.failure = failure
        is_own = failure.detail != INTERNAL_ERROR  # else the endpoint has words for it
        headers = {name: value for name, value in failure.headers if name != "content-type"}
        error = HTTPException(failure.status, failure.detail, headers) if is_own else None
        self._server.answer(self._uid, error, LitAPIStatus.ERROR)


def _check_dimensions(answer: Any, expected: int) -> None:
    """LitServe drops `dimensions`; an API that heeds it cuts its vectors by itself, as only it knows whether it may."""
    vectors = answer.get("embeddings") if isinstance(answer, dict) else None
    if vectors is None or not len(vectors):
        return
    rows = vectors if hasattr(vectors[0], "__len__") else [vectors]  # one vector may come without a list around it
    if sizes := {len(row) for row in rows} - {expected}:
        raise RefusalError(400, f"dimensions: this model's vectors have {max(sizes)} numbers, got {expected}")
