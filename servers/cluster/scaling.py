"""The number of replicas on Ray follows the requests that run and wait. Ray's controller imports `desired_replicas`.

Ray sees no request. Each replica tells it what it has in hand, and its share of what waits at each gateway; the sum
over the replicas is what all gateways have.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from configs.model import Autoscaling

METRIC = "litport_requests"
"""What a replica tells Ray: requests that it has, and its share of those that wait for the model."""

_POLICY = "servers.cluster.scaling:desired_replicas"
# What a replica tells is the mean of this time, and each second it tells.
_LOOK_BACK_S, _INTERVAL_S = 4.0, 1.0
# How long more must be needed before one starts.
_UP_AFTER_S = 1.0


def config(replicas: "Autoscaling") -> dict[str, Any]:
    """The range as Ray Serve takes it (AutoscalingConfig)."""
    return {
        "min_replicas": replicas.min,
        "max_replicas": replicas.max,
        "target_ongoing_requests": replicas.target_running,
        "metrics_interval_s": _INTERVAL_S,
        "look_back_period_s": _LOOK_BACK_S,
        "upscale_delay_s": _UP_AFTER_S,
        "downscale_delay_s": replicas.down_after_s,
        "policy": {"policy_function": _POLICY},
    }


def desired_replicas(context: Any) -> tuple[float, dict[str, Any]]:
    """So many replicas that each has its target, before the bounds; as many as now while no replica tells anything."""
    figures = (context.aggregated_metrics or {}).get(METRIC)
    if not figures:
        return context.target_num_replicas, {}
    return sum(figures.values()) / context.config.target_ongoing_requests, {}
