"""What the front door counts: requests by model and status, their whole time, and the part that the model took.

Read by Prometheus at `/metrics`, on a port of its own that only this machine reaches. The difference of the two times
is what the front door itself costs. No label holds anything that a client may choose freely.
"""

import logging

from prometheus_client import CollectorRegistry, Counter, Histogram, start_http_server

from configs.errors import UserError

_log = logging.getLogger("litport.gateway")
_LOOPBACK = "127.0.0.1"
# From a rejected request to a long generation.
_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """The front door's series, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "litport_requests", "Requests that reached a model", ["model", "status"], registry=self.registry
        )
        self.request_s = Histogram(
            "litport_request_duration_seconds",
            "From the request's head to the end of the answer",
            ["model"],
            buckets=_BUCKETS_S,
            registry=self.registry,
        )
        self.upstream_s = Histogram(
            "litport_upstream_duration_seconds",
            "The part of it from sending the request to the model's process to the end of its answer",
            ["model"],
            buckets=_BUCKETS_S,
            registry=self.registry,
        )

    def serve(self, port: int) -> None:
        """Answer Prometheus on loopback, in a thread of its own. Raises UserError when the port cannot be had."""
        try:
            start_http_server(port, addr=_LOOPBACK, registry=self.registry)
        except OSError as problem:
            raise UserError(
                f"telemetry.metrics_port: cannot listen on {_LOOPBACK} port {port}: {problem.strerror}"
            ) from None
        _log.info("metrics at http://%s:%d/metrics", _LOOPBACK, port)
