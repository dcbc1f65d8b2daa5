"""Stretches of a pass: consecutive shares of its work, each with the time that it took.

Rates are compared by stretches and not by requests, because requests under way together are not independent. A pass
is cut into shares of equal work and not of equal time: the users of a closed load often move in step, answered together
and asking together, and a cut in time would fall at random within their rounds, with nothing in one stretch and a whole
round in the next. There are about as many stretches as rounds, but at most 20, which then hold several rounds each.

Sources: batch means of simulation output, A. M. Law, J. S. Carson, "A sequential procedure for determining the length
of a steady-state simulation", Operations Research 27 (1979); 10 to 30 batches, B. Schmeiser, "Batch size effects in the
analysis of simulation output", Operations Research 30 (1982).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clients.record import RequestRecord

_LEAST = 4
_MOST = 20
_NORMAL_QUANTILE = 1.959964

Numbers = np.ndarray[Any, np.dtype[np.float64]]
Window = tuple[float, float]
Weight = Callable[[RequestRecord], float]


@dataclass(frozen=True)
class Stretches:
    """A pass in stretches: the work in each, the same for all, and the seconds that each took."""

    work: float
    lengths_s: Numbers


def under_way(records: Sequence[RequestRecord], window: Window) -> float:
    """The mean number of requests under way, failed ones left out.

    By Little's law it is the sum of the latencies over the time (J. D. C. Little, "A proof for the queuing formula
    L = lambda W", Operations Research 9, 1961).
    """
    latencies_s = [record.end_s - record.sent_s for record in records if not record.failed]
    return sum(latencies_s) / max(window[1] - window[0], 1e-9)


def rounds(records: Sequence[RequestRecord], window: Window) -> int:
    """How many stretches a pass has: as often as all requests under way were answered, but 4 to 20."""
    answered = sum(not record.failed for record in records)
    return min(max(round(answered / max(under_way(records, window), 1.0)), _LEAST), _MOST)


def cut(records: Sequence[RequestRecord], window: Window, weight: Weight, count: int) -> Stretches:
    """The pass in `count` stretches of what `weight` counts; an answer in parts counts at the times of its parts.

    A pass without any work has stretches of equal time.
    """
    times, weights = [], []
    for record in records:
        if not record.failed:
            parts = record.chunk_s or [record.end_s]
            times += parts
            weights += [weight(record) / len(parts)] * len(parts)
    order = np.argsort(times, kind="stable")
    done = np.cumsum(np.array(weights)[order]) if times else np.array([])
    begin_s, end_s = window
    if not len(done) or done[-1] <= 0:
        return Stretches(0.0, np.full(count, (end_s - begin_s) / count))
    shares = done[-1] * np.arange(1, count) / count
    ends_s = np.array(times)[order][np.searchsorted(done, shares * (1 - 1e-9))]  # less the rounding of the sums
    return Stretches(float(done[-1]) / count, np.diff([begin_s, *ends_s, end_s]))


def rate_error(parts: Sequence[Stretches]) -> float:
    """Half of the 95 % interval of the rate over all these stretches; work a second."""
    works = np.concatenate([np.full(len(part.lengths_s), part.work) for part in parts])
    return _error(works, np.concatenate([part.lengths_s for part in parts]))


def ratio_error(base: Sequence[Stretches], candidate: Sequence[Stretches]) -> float:
    """Half of the 95 % interval of the candidate's rate over the base's, as a share of the ratio.

    The stretches are paired, since the same requests come in the same order on both sides: what the requests cause, and
    the filling and draining of a pass, cancels out.
    """
    base_s, candidate_s = (np.concatenate([part.lengths_s / part.work for part in side]) for side in (base, candidate))
    return _error(base_s, candidate_s) * float(candidate_s.sum() / base_s.sum())


def _error(numerators: Numbers, denominators: Numbers) -> float:
    """Half of the 95 % interval of a ratio of two sums, by its residuals, with Student's t for so few terms.

    Source: W. G. Cochran, "Sampling Techniques", 3rd edition, 1977, section 6.4.
    """
    count = len(numerators)
    residuals = numerators - denominators * numerators.sum() / denominators.sum()
    deviation = np.sqrt(count / (count - 1) * (residuals**2).sum()) / denominators.sum()
    return _t_quantile(count - 1) * float(deviation)


def _t_quantile(freedom: int) -> float:
    """The 97.5 % quantile of Student's t, to 1 % from 3 degrees of freedom.

    Source: M. Abramowitz, I. A. Stegun, "Handbook of Mathematical Functions", 1964, 26.7.5.
    """
    z = _NORMAL_QUANTILE
    terms: tuple[float, ...] = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / float(freedom**power) for power, term in enumerate(terms, start=1))
