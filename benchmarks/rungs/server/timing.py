"""Where a request's time goes within plain LitServe: counted in each process, read together at `/metrics`.

The series have the names of those of the worker host (`servers.engines.litserve.host.metrics`).
"""

import os
from collections.abc import Awaitable, Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

_SECONDS = Counter("litserve_step_seconds", "Time that requests spent in each step, in seconds", ["step"])
_REQUESTS = Counter("litserve_step_requests", "Requests that went through each step", ["step"])


def count(step: str, spent_s: float, requests: int = 1) -> None:
    """Add what `requests` spent in a step, `spent_s` seconds all together."""
    _SECONDS.labels(step).inc(max(spent_s, 0.0))
    _REQUESTS.labels(step).inc(requests)


async def send_page(send: Callable[[Any], Awaitable[None]]) -> None:
    """Answer an ASGI request with the counts of all processes."""
    registry = CollectorRegistry()
    # prometheus_client's processes find each other by this variable; it is set before any of them is started.
    path = os.environ["PROMETHEUS_MULTIPROC_DIR"]
    MultiProcessCollector(registry, path=path)  # type: ignore[no-untyped-call]
    headers = [(b"content-type", b"text/plain; version=0.0.4; charset=utf-8")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": generate_latest(registry)})
