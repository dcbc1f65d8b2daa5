"""The totals of a dispatcher in Prometheus' text format.

The step `http` is the whole of a request, from its queue to the last of its answer.
"""

from collections.abc import Iterator

from servers.engines.litserve.host.answer import Totals

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS, _REQUESTS, _BATCH = "litserve_step_seconds_total", "litserve_step_requests_total", "litserve_batch_size"
_RETRIED = "litserve_retried_requests_total"
_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)


def page(totals: Totals) -> bytes:
    """The page `/metrics`."""
    return ("\n".join(_lines(totals)) + "\n").encode()


def _lines(totals: Totals) -> Iterator[str]:
    seconds = {**totals.seconds, "http": totals.whole_s}
    yield f"# HELP {_SECONDS} Time that requests spent in each step, in seconds"
    yield f"# TYPE {_SECONDS} counter"
    yield from (f'{_SECONDS}{{step="{step}"}} {max(spent_s, 0.0)}' for step, spent_s in seconds.items())
    yield f"# HELP {_REQUESTS} Requests that went through each step"
    yield f"# TYPE {_REQUESTS} counter"
    yield from (f'{_REQUESTS}{{step="{step}"}} {float(totals.requests)}' for step in seconds)
    yield f"# HELP {_RETRIED} Requests that predict had alone after it had failed for their batch"
    yield f"# TYPE {_RETRIED} counter"
    yield f"{_RETRIED} {float(totals.retried)}"
    yield f"# HELP {_BATCH} Requests of a batch"
    yield f"# TYPE {_BATCH} histogram"
    sizes = totals.batch_sizes
    for most in _BUCKETS:
        count = sum(number for size, number in sizes.items() if size <= most)
        yield f'{_BATCH}_bucket{{le="{float(most)}"}} {float(count)}'
    yield f'{_BATCH}_bucket{{le="+Inf"}} {float(sizes.total())}'
    yield f"{_BATCH}_count {float(sizes.total())}"
    yield f"{_BATCH}_sum {float(sum(size * number for size, number in sizes.items()))}"
