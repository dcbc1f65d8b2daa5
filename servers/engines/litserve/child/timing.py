"""Where a request's time goes within LitServe: counted in each process, read together at `/metrics`.

The steps follow each other without a gap: receive (HTTP server until the queue), queue (until a worker takes it),
batch wait (until its batch begins), decode, predict, encode; `http` is the whole, and what it has more than the steps
together is the way back. Every request counts with the whole of its batch's time, since that is what it waits for.
"""

import os
from collections.abc import Awaitable, Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from servers.engines.litserve.child.work import Batch, Listener, Request, Step

SECONDS = Counter("litserve_step_seconds", "Time that requests spent in each step, in seconds", ["step"])
REQUESTS = Counter("litserve_step_requests", "Requests that went through each step", ["step"])
BATCH_SIZE = Histogram("litserve_batch_size", "Requests of a batch", buckets=[1, 2, 4, 8, 16, 32, 64, 128])


def count(step: str, spent_s: float, requests: int = 1) -> None:
    """Add what `requests` spent in a step, `spent_s` seconds all together."""
    SECONDS.labels(step).inc(max(spent_s, 0.0))
    REQUESTS.labels(step).inc(requests)


class Timing(Listener):
    """In a worker: counts the steps."""

    def request_taken(self, request: Request) -> None:
        """The request has left the queue."""
        count("queue", request.taken_s - request.queued_s)

    def step_ended(self, batch: Batch, step: Step, spent_s: float) -> None:
        """Count the step for each request of the batch."""
        size = len(batch.requests)
        if step == "batch_wait":
            BATCH_SIZE.observe(size)
            count(step, sum(batch.step_begin_s - request.taken_s for request in batch.requests), size)
        else:
            count(step, spent_s * size, size)


async def send_page(send: Callable[[Any], Awaitable[None]]) -> None:
    """Answer an ASGI request with the counts of all processes."""
    registry = CollectorRegistry()
    # prometheus_client's processes find each other by this variable; it is set before any of them is started.
    path = os.environ["PROMETHEUS_MULTIPROC_DIR"]
    MultiProcessCollector(registry, path=path)  # type: ignore[no-untyped-call]
    headers = [(b"content-type", b"text/plain; version=0.0.4; charset=utf-8")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": generate_latest(registry)})
