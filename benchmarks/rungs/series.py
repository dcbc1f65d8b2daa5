"""Prometheus series of a server, read before and after a measurement.

Values are summed over all labels but `step`, which tells LitServe's times apart. Requests other than POST are left out,
so that the reading itself is not counted. A server that does not answer, or answers something else, has no series.
"""

from collections.abc import Mapping
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

Series = Mapping[str, float]
_TIMEOUT_S = 10.0


def read(url: str, socket: Path | None = None) -> dict[str, float]:
    """The page at `url` (over the Unix socket `socket` where given), by sample name, or `name/step`."""
    transport = httpx.HTTPTransport(uds=str(socket)) if socket else None
    try:
        with httpx.Client(transport=transport, timeout=_TIMEOUT_S, trust_env=False) as client:
            response = client.get(url)
            response.raise_for_status()
        return parse(response.text)
    except (httpx.HTTPError, ValueError):
        return {}


def parse(text: str) -> dict[str, float]:
    """Samples of the exposition format, summed by name. Raises ValueError for another format."""
    series: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.endswith(("_bucket", "_created")) or sample.labels.get("method", "POST") != "POST":
                continue
            step = sample.labels.get("step")
            name = f"{sample.name}/{step}" if step else sample.name
            series[name] = series.get(name, 0.0) + sample.value
    return series


def difference(before: Series, after: Series) -> dict[str, float]:
    """What the series gained between two readings."""
    return {name: value - before.get(name, 0.0) for name, value in after.items()}


def prefix_cache_hit_rate(gains: Series) -> float | None:
    """The share of prompt tokens that vLLM's prefix cache answered; None where the server does not say."""
    queries = gains.get("vllm:prefix_cache_queries_total")
    return gains.get("vllm:prefix_cache_hits_total", 0.0) / queries if queries else None
