"""Whether a rung answers as the baseline does: tokens and their log-probabilities, vectors by their angle, labels by
their order and scores.

A faster server that answers something else is not faster. Greedy answers only; the distance of log-probabilities counts
the tokens before the first that differs, since after it the two continue different texts. Weights that are a little
wrong often keep the likeliest token and the order of labels, so the distances count, too.
"""

from collections.abc import Sequence

import msgspec
import numpy as np

from benchmarks.analysis.measurement import Answer
from configs.bench import Validity

# Vectors of the same model in the same precision, batched otherwise.
_SAME_COSINE = 0.9999


class Parity(msgspec.Struct, frozen=True):
    """Comparison with the baseline's answers. None for what these answers do not have.

    `exact_share` is the share of equal answers, `first_divergence` the earliest position of a token that differs,
    `logprob_distance` the mean absolute difference of log-probabilities (nats), `least_cosine` the least cosine of two
    vectors, `score_distance` the largest difference of two scores. `holds` is whether all answers are the baseline's,
    and `problem` says which are not.
    """

    prompts: int
    exact_share: float
    first_divergence: int | None = None
    logprob_distance: float | None = None
    least_cosine: float | None = None
    score_distance: float | None = None
    holds: bool = True
    problem: str = ""


def compare(baseline: Sequence[Answer], answers: Sequence[Answer], limits: Validity) -> Parity | None:
    """How the answers agree with the baseline's; None when there is nothing to compare."""
    pairs = list(zip(baseline, answers, strict=True))
    if not pairs:
        return None
    cosines = [_cosine(base.vectors, answer.vectors) for base, answer in pairs if base.vectors and answer.vectors]
    equal = [_are_equal(base, answer) for base, answer in pairs]
    divergences = [point for base, answer in pairs if (point := _divergence(base, answer)) is not None]
    distances = [distance for base, answer in pairs for distance in _distances(base, answer)]
    parity = Parity(
        prompts=len(pairs),
        exact_share=sum(equal) / len(equal),
        first_divergence=min(divergences, default=None),
        logprob_distance=float(np.mean(distances)) if distances else None,
        least_cosine=min(cosines, default=None),
        score_distance=max((gap for base, answer in pairs for gap in _score_gaps(base, answer)), default=None),
    )
    problem = _problem(parity, limits)
    return msgspec.structs.replace(parity, holds=not problem, problem=problem)


def _problem(parity: Parity, limits: Validity) -> str:
    if parity.exact_share < 1:
        return f"{parity.exact_share:.0%} of its answers are those of the baseline"
    for name, distance, limit in (
        ("logprob", parity.logprob_distance, limits.max_logprob_distance),
        ("score", parity.score_distance, limits.max_score_distance),
    ):
        if distance is not None and distance > limit:
            what = "log-probabilities" if name == "logprob" else "scores"
            setting = f"bench.validity.max_{name}_distance: {limit:g}"
            return f"its answers are those of the baseline, but their {what} differ by {distance:.2g} ({setting})"
    return ""


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


def _score_gaps(base: Answer, answer: Answer) -> list[float]:
    if not base.scores or not answer.scores or base.labels != answer.labels:
        return []
    return [abs(expected - score) for expected, score in zip(base.scores, answer.scores, strict=True)]


def _cosine(base: Sequence[Sequence[float]], answer: Sequence[Sequence[float]]) -> float:
    if [len(vector) for vector in base] != [len(vector) for vector in answer]:
        return -1.0
    first, second = np.array(base), np.array(answer)
    products = (first * second).sum(axis=1)
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return float(np.where(lengths > 0, products / np.where(lengths > 0, lengths, 1), -1.0).min())
