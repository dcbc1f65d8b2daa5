"""Prometheus series of a server, as numbers before and after.

Labels are summed over, except `step`, by which LitServe's times are told apart, and requests other than POST are left
out: what is read around a measurement must count that measurement only. A server that does not answer has no series.
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
        with httpx.Client(transport=transport, timeout=_TIMEOUT_S) as client:
            response = client.get(url)
            response.raise_for_status()
    except httpx.HTTPError:
        return {}
    return parse(response.text)


def parse(text: str) -> dict[str, float]:
    """Samples of the exposition format, summed by name."""
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
    """What was added between two readings."""
    return {name: value - before.get(name, 0.0) for name, value in after.items()}
