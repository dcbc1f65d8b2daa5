"""Figures from records: latencies, rates, goodput and errors, each with its interval.

Intervals are for 95 %: of latencies percentile bootstraps of the values observed, one a request, or a gap between parts
(B. Efron, "Bootstrap methods", Annals of Statistics 7, 1979), of rates Student's t over stretches of a pass. A
percentile is given only where at least five observations lie beyond it; otherwise it is None, as is everything that was
not measured. Times are in seconds.
"""

import math
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import msgspec
import numpy as np

from benchmarks.analysis import stretches
from benchmarks.analysis.stretches import Numbers, Weight, Window
from clients.record import RequestRecord
from configs.bench import Slo

_BEYOND = 5
_RESAMPLES = 1000

Pass = Sequence[RequestRecord]


class Rate(msgspec.Struct, frozen=True):
    """A rate over all passes, its interval, and the rate of each pass."""

    value: float
    ci: list[float]
    passes: list[float]


Statistic = Literal["mean", "p50", "p90", "p99"]
"""A figure of a distribution."""


class Distribution(msgspec.Struct, frozen=True):
    """How many values there are, their mean and percentiles, each with its interval."""

    n: int
    mean: float
    mean_ci: list[float]
    p50: float | None
    p50_ci: list[float] | None
    p90: float | None
    p90_ci: list[float] | None
    p99: float | None
    p99_ci: list[float] | None

    def value(self, statistic: Statistic) -> float | None:
        """One of the figures."""
        return {"mean": self.mean, "p50": self.p50, "p90": self.p90, "p99": self.p99}[statistic]

    def interval(self, statistic: Statistic) -> list[float] | None:
        """The interval of one of the figures."""
        return {"mean": self.mean_ci, "p50": self.p50_ci, "p90": self.p90_ci, "p99": self.p99_ci}[statistic]


class Figures(msgspec.Struct, frozen=True):
    """All figures of one rung over its passes; `errors` counts the failed requests by kind."""

    requests: int
    failed: int
    errors: dict[str, int]
    duration_s: float
    request_throughput_per_s: Rate | None
    output_throughput_per_s: Rate | None
    goodput_per_s: Rate | None
    ttft_s: Distribution | None
    tpot_s: Distribution | None
    itl_s: Distribution | None
    e2e_s: Distribution | None
    prompt_tokens: int | None
    output_tokens: int | None


def supports(count: int, percentile: int) -> bool:
    """Whether `count` observations are enough for the percentile."""
    return count >= least_count(percentile)


def least_count(percentile: int) -> int:
    """How many observations are enough for the percentile."""
    return math.ceil(_BEYOND * 100 / (100 - percentile))


def summarise(passes: Sequence[Pass], windows: Sequence[Window], slo: Slo) -> Figures:
    """All figures of one rung over its passes; `windows` are when each began and ended."""
    records = [record for records in passes for record in records]
    answered = [record for record in records if not record.failed]
    itl_s = [later - earlier for record in answered for earlier, later in pairwise(record.chunk_s)]
    generates = any(record.output_tokens is not None for record in answered)
    return Figures(
        requests=len(records),
        failed=len(records) - len(answered),
        errors=dict(Counter(_kind(record) for record in records if record.failed)),
        duration_s=sum(end - begin for begin, end in windows),
        request_throughput_per_s=rate(passes, windows, lambda _: 1.0),
        output_throughput_per_s=rate(passes, windows, lambda record: record.output_tokens or 0) if generates else None,
        goodput_per_s=rate(passes, windows, lambda record: float(meets(record, slo))) if _has_limit(slo) else None,
        ttft_s=distribution([record.ttft_s for record in answered]),
        tpot_s=distribution([record.tpot_s for record in answered]),
        itl_s=distribution(itl_s),
        e2e_s=distribution([record.e2e_s for record in answered]),
        prompt_tokens=_total(record.prompt_tokens for record in answered),
        output_tokens=_total(record.output_tokens for record in answered),
    )


def distribution(values: Sequence[float | None]) -> Distribution | None:
    """Count, mean and percentiles with their intervals; None when nothing was measured."""
    measured = np.array([value for value in values if value is not None])
    if not len(measured):
        return None
    size = (_RESAMPLES, min(len(measured), 20_000))
    draws = measured[np.random.default_rng(0).integers(0, len(measured), size)]

    def percentile(rank: int) -> tuple[float | None, list[float] | None]:
        if not supports(len(measured), rank):
            return None, None
        return float(np.percentile(measured, rank)), _interval(np.percentile(draws, rank, axis=1))

    mean = float(measured.mean()), _interval(draws.mean(axis=1))
    return Distribution(len(measured), *mean, *percentile(50), *percentile(90), *percentile(99))


def rate(passes: Sequence[Pass], windows: Sequence[Window], weight: Weight) -> Rate | None:
    """What `weight` counts a second: over all the time, in each pass, and its interval.

    An answer that came in parts counts over the times of its parts.
    """
    if not passes or all(record.failed for records in passes for record in records):
        return None
    parts = [
        stretches.cut(records, window, weight, stretches.rounds(records, window))
        for records, window in zip(passes, windows, strict=True)
    ]
    lengths_s = sum(float(part.lengths_s.sum()) for part in parts)
    value = sum(part.work * len(part.lengths_s) for part in parts) / lengths_s
    error = stretches.rate_error(parts)
    rates = [part.work * len(part.lengths_s) / float(part.lengths_s.sum()) for part in parts]
    return Rate(value, [max(0.0, value - error), value + error], rates)


def knee(levels: Sequence[tuple[int, float, float]]) -> int | None:
    """The users at which a ramp bends: where throughput over latency is greatest; None for a single level.

    `levels` are users, throughput and mean latency. Source: L. Kleinrock, "Power and deterministic rules of thumb for
    probabilistic problems in computer communications", ICC 1979.
    """
    return max(levels, key=lambda level: level[1] / level[2])[0] if len(levels) > 1 else None


def meets(record: RequestRecord, slo: Slo) -> bool:
    """Whether a request was answered within the SLOs; a time that was not measured is not within its limit."""
    limits = ((record.ttft_s, slo.ttft_s), (record.tpot_s, slo.tpot_s), (record.e2e_s, slo.e2e_s))
    return not record.failed and all(limit is None or (value is not None and value <= limit) for value, limit in limits)


def _has_limit(slo: Slo) -> bool:
    return any(limit is not None for limit in (slo.ttft_s, slo.tpot_s, slo.e2e_s))


def _kind(record: RequestRecord) -> str:
    return (record.error or "").partition(":")[0]


def _total(values: Any) -> int | None:
    counts = [value for value in values if value is not None]
    return sum(counts) if counts else None


def _interval(draws: Numbers) -> list[float]:
    low, high = np.percentile(draws, (2.5, 97.5))
    return [float(low), float(high)]
