"""Whether a rung answers as the baseline does: tokens exactly, vectors by their angle, labels by their order.

A faster server that answers something else is not faster. Greedy answers only; the distance of log-probabilities counts
the tokens before the first that differs, since after it the two continue different texts.
"""

from collections.abc import Sequence

import msgspec
import numpy as np

from benchmarks.analysis.measurement import Answer

# Vectors of the same model in the same precision, batched otherwise.
_SAME_COSINE = 0.9999


class Parity(msgspec.Struct, frozen=True):
    """Comparison with the baseline's answers. None for what these answers do not have.

    `exact_share` is the share of equal answers, `first_divergence` the earliest position of a token that differs,
    `logprob_distance` the mean absolute difference of log-probabilities (nats), `least_cosine` the least cosine of two
    vectors. `holds` is whether all answers are the baseline's; it follows from `exact_share`.
    """

    prompts: int
    exact_share: float
    first_divergence: int | None = None
    logprob_distance: float | None = None
    least_cosine: float | None = None
    holds: bool = False

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "holds", self.exact_share == 1.0)


def compare(baseline: Sequence[Answer], answers: Sequence[Answer]) -> Parity | None:
    """How the answers agree with the baseline's; None when there is nothing to compare."""
    pairs = list(zip(baseline, answers, strict=True))
    if not pairs:
        return None
    cosines = [_cosine(base.vectors, answer.vectors) for base, answer in pairs if base.vectors and answer.vectors]
    equal = [_are_equal(base, answer) for base, answer in pairs]
    divergences = [point for base, answer in pairs if (point := _divergence(base, answer)) is not None]
    distances = [distance for base, answer in pairs for distance in _distances(base, answer)]
    return Parity(
        prompts=len(pairs),
        exact_share=sum(equal) / len(equal),
        first_divergence=min(divergences, default=None),
        logprob_distance=float(np.mean(distances)) if distances else None,
        least_cosine=min(cosines, default=None),
    )


def _are_equal(base: Answer, answer: Answer) -> bool:
    if base.token_ids is not None and answer.token_ids is not None:
        return base.token_ids == answer.token_ids
    if base.vectors and answer.vectors:
        return _cosine(base.vectors, answer.vectors) >= _SAME_COSINE
    return base.labels is not None and base.labels == answer.labels


def _divergence(base: Answer, answer: Answer) -> int | None:
    if base.token_ids is None or answer.token_ids is None or base.token_ids == answer.token_ids:
        return None
    pairs = enumerate(zip(base.token_ids, answer.token_ids, strict=False))
    shorter = min(len(base.token_ids), len(answer.token_ids))
    return next((position for position, (expected, token) in pairs if expected != token), shorter)


def _distances(base: Answer, answer: Answer) -> list[float]:
    if not base.logprobs or not answer.logprobs:
        return []
    end = _divergence(base, answer)
    pairs = zip(base.logprobs[:end], answer.logprobs[:end], strict=False)
    return [abs(expected - logprob) for expected, logprob in pairs]


def _cosine(base: Sequence[Sequence[float]], answer: Sequence[Sequence[float]]) -> float:
    if [len(vector) for vector in base] != [len(vector) for vector in answer]:
        return -1.0
    first, second = np.array(base), np.array(answer)
    products = (first * second).sum(axis=1)
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return float(np.where(lengths > 0, products / np.where(lengths > 0, lengths, 1), -1.0).min())
