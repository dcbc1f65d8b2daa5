"""Figures from records: latencies, rates, goodput, errors; each with how sure it is.

Intervals are 95 % percentile bootstraps (Efron 1979): latencies resampled by request, rates by stretches of the
measured time. A percentile is given only where at least five observations lie beyond it; otherwise it is None, as is
everything that was not measured. Times are in seconds.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from clients.record import RequestRecord
from configs.bench import Slo

PERCENTILES = (50, 90, 99)
_BEYOND = 5
_RESAMPLES = 1000
_STRETCHES = 20

Numbers = np.ndarray[Any, np.dtype[np.float64]]
Window = tuple[float, float]
Pass = Sequence[RequestRecord]


def supports(count: int, percentile: int) -> bool:
    """Whether `count` observations are enough for the percentile."""
    return count * (100 - percentile) / 100 >= _BEYOND


def summarise(passes: Sequence[Pass], windows: Sequence[Window], slo: Slo) -> dict[str, Any]:
    """All figures of one rung over its passes; `windows` are when each began and ended."""
    records = [record for one in passes for record in one]
    good = [record for record in records if not record.failed]
    spent_s = sum(end - begin for begin, end in windows)
    itl_s = [later - earlier for record in good for earlier, later in pairwise(record.chunk_s)]
    tokens = any(record.output_tokens is not None for record in good)
    return {
        "requests": len(records),
        "failed": len(records) - len(good),
        "errors": dict(Counter(_kind(record) for record in records if record.failed)),
        "duration_s": spent_s,
        "request_throughput_per_s": rate(passes, windows, lambda _: 1.0),
        "output_throughput_per_s": rate(passes, windows, lambda record: record.output_tokens or 0) if tokens else None,
        "goodput_per_s": rate(passes, windows, lambda record: float(meets(record, slo))) if _states(slo) else None,
        "ttft_s": distribution([record.ttft_s for record in good]),
        "tpot_s": distribution([record.tpot_s for record in good]),
        "itl_s": distribution(itl_s),
        "e2e_s": distribution([record.e2e_s for record in good]),
        "prompt_tokens": _total(record.prompt_tokens for record in good),
        "output_tokens": _total(record.output_tokens for record in good),
    }


def distribution(values: Sequence[float | None]) -> dict[str, Any] | None:
    """Count, mean and percentiles with their intervals; None when nothing was measured."""
    known = np.array([value for value in values if value is not None])
    if not len(known):
        return None
    draws = known[np.random.default_rng(0).integers(0, len(known), (_RESAMPLES, min(len(known), 20_000)))]
    found: dict[str, Any] = {"n": len(known), "mean": float(known.mean()), "mean_ci": _interval(draws.mean(axis=1))}
    for percentile in PERCENTILES:
        supported = supports(len(known), percentile)
        found[f"p{percentile}"] = float(np.percentile(known, percentile)) if supported else None
        found[f"p{percentile}_ci"] = _interval(np.percentile(draws, percentile, axis=1)) if supported else None
    return found


def rate(
    passes: Sequence[Pass], windows: Sequence[Window], weight: Callable[[RequestRecord], float]
) -> dict[str, Any] | None:
    """What `weight` counts a second: over all the time, in each pass, and its interval.

    An answer that came in parts counts over the times of its parts.
    """
    stretches, lengths_s = stretch_rates(passes, windows, weight)
    if not len(stretches) or all(record.failed for one in passes for record in one):
        return None
    each = [
        sum(weight(record) for record in one if not record.failed) / (end - begin)
        for one, (begin, end) in zip(passes, windows, strict=True)
    ]
    spent_s = sum(end - begin for begin, end in windows)
    total = sum(value * (end - begin) for value, (begin, end) in zip(each, windows, strict=True))
    return {"value": total / spent_s, "ci": _interval(resampled_means(stretches, lengths_s)), "passes": each}


def resampled_means(rates: Numbers, lengths_s: Numbers, seed: int = 0) -> Numbers:
    """Means over the time of `_RESAMPLES` bootstrap samples of the stretches; a longer stretch counts for more."""
    chosen = np.random.default_rng(seed).integers(0, len(rates), (_RESAMPLES, len(rates)))
    means: Numbers = (rates * lengths_s)[chosen].sum(axis=1) / lengths_s[chosen].sum(axis=1)
    return means


def stretch_rates(
    passes: Sequence[Pass], windows: Sequence[Window], weight: Callable[[RequestRecord], float]
) -> tuple[Numbers, Numbers]:
    """The rate in each of the equal stretches into which every pass is cut, and the length of each in seconds."""
    found, lengths = [], []
    for one, (begin, end) in zip(passes, windows, strict=True):
        times, weights = [], []
        for record in one:
            if record.failed:
                continue
            parts = record.chunk_s or [record.end_s]
            times += parts
            weights += [weight(record) / len(parts)] * len(parts)
        if end > begin:
            counts, _ = np.histogram(times, bins=_STRETCHES, range=(begin, end), weights=weights)
            length_s = (end - begin) / _STRETCHES
            found.append(counts / length_s)
            lengths.append(np.full(_STRETCHES, length_s))
    return (np.concatenate(found), np.concatenate(lengths)) if found else (np.array([]), np.array([]))


def knee(levels: Sequence[tuple[int, float, float]]) -> int | None:
    """The users at which a ramp bends: where throughput over latency is greatest; None for a single level.

    `levels` are users, throughput and mean latency. Source: L. Kleinrock, "Power and deterministic rules of thumb for
    probabilistic problems in computer communications", ICC 1979.
    """
    return max(levels, key=lambda level: level[1] / level[2])[0] if len(levels) > 1 else None


def meets(record: RequestRecord, slo: Slo) -> bool:
    """Whether a request was answered as the SLOs ask; what was not measured does not meet what is asked of it."""
    asked = ((record.ttft_s, slo.ttft_s), (record.tpot_s, slo.tpot_s), (record.e2e_s, slo.e2e_s))
    return not record.failed and all(limit is None or (value is not None and value <= limit) for value, limit in asked)


def _states(slo: Slo) -> bool:
    return any(limit is not None for limit in (slo.ttft_s, slo.tpot_s, slo.e2e_s))


def _kind(record: RequestRecord) -> str:
    return (record.error or "").partition(":")[0]


def _total(values: Any) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _interval(draws: Numbers) -> list[float]:
    low, high = np.percentile(draws, (2.5, 97.5))
    return [float(low), float(high)]
