"""Whether a rung answers as the baseline does: tokens exactly, vectors by their angle, labels by their order.

A faster server that answers something else is not faster. Greedy answers only; the distance of log-probabilities counts
the tokens before the first that differs, since after it the two continue different texts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.rungs.bare.outcome import Answer

# Vectors of the same model in the same precision, batched otherwise.
_SAME_COSINE = 0.9999


@dataclass(frozen=True)
class Parity:
    """Comparison with the baseline's answers. None for what these answers do not have.

    `exact_share` is the share of equal answers, `first_divergence` the earliest position of a token that differs,
    `logprob_distance` the mean absolute difference of log-probabilities (nats), `least_cosine` that of the vectors.
    """

    prompts: int
    exact_share: float
    first_divergence: int | None = None
    logprob_distance: float | None = None
    least_cosine: float | None = None

    @property
    def holds(self) -> bool:
        """Whether all answers are the baseline's."""
        return self.exact_share == 1.0


def compare(baseline: Sequence[Answer], answers: Sequence[Answer]) -> Parity | None:
    """How the answers agree with the baseline's; None when there is nothing to compare."""
    pairs = list(zip(baseline, answers, strict=True))
    if not pairs:
        return None
    cosines = [_cosine(ours.vectors, theirs.vectors) for theirs, ours in pairs if ours.vectors and theirs.vectors]
    same = [_same(theirs, ours) for theirs, ours in pairs]
    points = [point for theirs, ours in pairs if (point := _divergence(theirs, ours)) is not None]
    distances = [distance for theirs, ours in pairs for distance in _distances(theirs, ours)]
    return Parity(
        prompts=len(pairs),
        exact_share=sum(same) / len(same),
        first_divergence=min(points, default=None),
        logprob_distance=float(np.mean(distances)) if distances else None,
        least_cosine=min(cosines, default=None),
    )


def _same(theirs: Answer, ours: Answer) -> bool:
    if theirs.token_ids is not None and ours.token_ids is not None:
        return theirs.token_ids == ours.token_ids
    if theirs.vectors and ours.vectors:
        return _cosine(theirs.vectors, ours.vectors) >= _SAME_COSINE
    return theirs.labels is not None and theirs.labels == ours.labels


def _divergence(theirs: Answer, ours: Answer) -> int | None:
    if theirs.token_ids is None or ours.token_ids is None or theirs.token_ids == ours.token_ids:
        return None
    pairs = enumerate(zip(theirs.token_ids, ours.token_ids, strict=False))
    shorter = min(len(theirs.token_ids), len(ours.token_ids))
    return next((position for position, (one, other) in pairs if one != other), shorter)


def _distances(theirs: Answer, ours: Answer) -> list[float]:
    if not theirs.logprobs or not ours.logprobs:
        return []
    end = _divergence(theirs, ours)
    return [abs(one - other) for one, other in zip(theirs.logprobs[:end], ours.logprobs[:end], strict=False)]


def _cosine(theirs: Sequence[Sequence[float]], ours: Sequence[Sequence[float]]) -> float:
    if [len(vector) for vector in theirs] != [len(vector) for vector in ours]:
        return -1.0
    one, other = np.array(theirs), np.array(ours)
    products = (one * other).sum(axis=1)
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return float(np.where(lengths > 0, products / np.where(lengths > 0, lengths, 1), -1.0).min())
