"""Where a request's time goes within LitServe, which tells nobody: counted where it passes, read at `/metrics`.

The steps follow each other without a gap: receive (HTTP server until the queue), queue (until a worker takes it),
batch wait (until its batch begins), decode, predict, encode; `http` is the whole, and what it has more than the steps
together is the way back. Every request counts with the whole of its batch's time, since that is what it waits for. It
never looks at a request's content.
"""

import os
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

from litserve.callbacks import Callback
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from servers.engines.litserve.child.cancel import Receive, Scope, Send
from servers.engines.litserve.child.in_flight import CancellableQueue

SECONDS = Counter("litserve_step_seconds", "Time that requests spent in each step, in seconds", ["step"])
REQUESTS = Counter("litserve_step_requests", "Requests that went through each step", ["step"])
BATCH_SIZE = Histogram("litserve_batch_size", "Requests of a batch", buckets=[1, 2, 4, 8, 16, 32, 64, 128])

_received_at: ContextVar[float | None] = ContextVar("received_at", default=None)
# Times at which this worker took requests from the queue whose batch has not begun yet.
_taken_s: deque[float] = deque()


def count(step: str, spent_s: float, requests: int = 1) -> None:
    """Add what `requests` spent in a step, `spent_s` seconds all together."""
    SECONDS.labels(step).inc(max(spent_s, 0.0))
    REQUESTS.labels(step).inc(requests)


class TimedQueue(CancellableQueue):
    """The queue of requests, timed: (queue number, id, `time.monotonic()`, body)."""

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """In a worker: the request leaves the queue."""
        request = super().get(block, timeout)
        now_s = time.monotonic()
        if request[2] is not None:  # LitServe's word to stop is a tuple of None
            count("queue", now_s - request[2])
            _taken_s.append(now_s)
        return request


class Timing(Callback):  # type: ignore[misc] # litserve ships no complete types
    """In the API server, notes when a request has been received; in a worker, when each step of a batch ends."""

    def __init__(self) -> None:
        self._size = 0
        self._at_s = 0.0

    def on_request(self, *_: Any, **__: Any) -> None:
        """In the API server: the request goes into the queue."""
        received_at = _received_at.get()
        if received_at is not None:
            count("receive", time.monotonic() - received_at)

    def on_before_predict(self, *_: Any, **__: Any) -> None:
        """Of a stream without batches nobody is told that it is decoded: it begins here."""
        if _taken_s:
            self.on_before_decode_request()

    def on_before_decode_request(self, *_: Any, **__: Any) -> None:
        """The batch begins: those that were taken from the queue have stopped waiting."""
        now_s = time.monotonic()
        self._size = len(_taken_s) or 1
        BATCH_SIZE.observe(self._size)
        if _taken_s:
            count("batch_wait", sum(now_s - taken_s for taken_s in _taken_s), len(_taken_s))
            _taken_s.clear()
        self._at_s = now_s

    def on_after_decode_request(self, *_: Any, **__: Any) -> None:
        """The batch is decoded."""
        self._count("decode")

    def on_before_encode_response(self, *_: Any, **__: Any) -> None:
        """Predicted, with what batching and unbatching took; of a stream, begun."""
        self._count("predict")

    def on_after_encode_response(self, *_: Any, **__: Any) -> None:
        """Encoded; of a stream, generated."""
        self._count("encode")

    def _count(self, step: str) -> None:
        now_s = time.monotonic()
        count(step, (now_s - self._at_s) * self._size, self._size)
        self._at_s = now_s


class HttpTiming:
    """ASGI middleware: the whole of each POST, and the page `/metrics` of this process and its workers."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Time one request, or answer with the metrics."""
        if scope["type"] != "http" or (scope["method"] != "POST" and scope["path"] != "/metrics"):
            await self._app(scope, receive, send)
        elif scope["path"] == "/metrics":
            await _tell(send)
        else:
            begin_s = time.monotonic()
            _received_at.set(begin_s)
            try:
                await self._app(scope, receive, send)
            finally:
                count("http", time.monotonic() - begin_s)


async def _tell(send: Send) -> None:
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=os.environ[MULTIPROCESS_DIR])  # type: ignore[no-untyped-call]
    body = generate_latest(registry)
    headers = [(b"content-type", b"text/plain; version=0.0.4; charset=utf-8")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


MULTIPROCESS_DIR = "PROMETHEUS_MULTIPROC_DIR"
"""The variable by which prometheus_client's processes find each other; set before any of them is started."""
