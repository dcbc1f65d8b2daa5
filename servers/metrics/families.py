"""Metric families whose values are read when the page is requested.

An unknown value is left out, so that Prometheus shows a gap and not a wrong 0.
"""

from collections.abc import Iterable, Mapping
from typing import Literal

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

Value = tuple[Mapping[str, str], float | None]


def family(kind: Literal["gauge", "counter"], name: str, description: str, values: Iterable[Value]) -> Metric:
    """The family `litport_<name>` of (labels, value) pairs, without those whose value is None."""
    metric = (GaugeMetricFamily if kind == "gauge" else CounterMetricFamily)(f"litport_{name}", description)
    suffix = "_total" if kind == "counter" else ""
    for labels, value in values:
        if value is not None:
            metric.add_sample(f"litport_{name}{suffix}", dict(labels), value)
    return metric
