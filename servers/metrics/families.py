"""Series that are not counted but read when the page is asked for, told by few words.

An unknown value is left out: Prometheus then shows a gap, where 0 would be a lie.
"""

from collections.abc import Iterable, Mapping
from typing import Literal

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

Value = tuple[Mapping[str, str], float | None]


def family(kind: Literal["gauge", "counter"], name: str, words: str, values: Iterable[Value]) -> Metric:
    """One family `litport_<name>` of (labels, value) pairs; without those whose value is None."""
    made = (GaugeMetricFamily if kind == "gauge" else CounterMetricFamily)(f"litport_{name}", words)
    suffix = "_total" if kind == "counter" else ""
    for labels, value in values:
        if value is not None:
            made.add_sample(f"litport_{name}{suffix}", dict(labels), value)
    return made
