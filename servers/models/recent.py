"""The requests to one model within the last half minute, for `litport status`.

It is for a person without a Prometheus at hand. It stores when and how the last few thousand requests ended; when they
do not cover the whole window, the rates are those of the time that they cover.
"""

import math
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

# One request in the first millisecond of a platform is not a rate of a thousand a second.
_MIN_WINDOW_S = 1.0


class _Outcome(NamedTuple):
    at_s: float
    duration_s: float
    ttft_s: float | None
    failed: bool
    refused: bool
    input_tokens: int
    output_tokens: int


class Recent:
    """The requests to one model that ended within the last `window_s` seconds, at most `max_requests` of them.

    Times are those of `time.monotonic()`; `begin_s` is when the counting began, by default now.
    """

    def __init__(self, window_s: float = 30.0, max_requests: int = 4096, begin_s: float | None = None) -> None:
        self._window_s = window_s
        self._begin_s = time.monotonic() if begin_s is None else begin_s
        self._outcomes: deque[_Outcome] = deque(maxlen=max_requests)
        self._dropped_s = -math.inf

    def note(
        self,
        now_s: float,
        duration_s: float,
        ttft_s: float | None = None,
        *,
        failed: bool = False,
        refused: bool = False,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
    ) -> None:
        """Record a request that ended; a token count of None is unknown and counts as 0.

        `failed` is a fault of the model or of the platform, `refused` one of the caller.
        """
        if len(self._outcomes) == self._outcomes.maxlen:
            self._dropped_s = self._outcomes[0].at_s
        tokens = input_tokens or 0, output_tokens or 0
        self._outcomes.append(_Outcome(now_s, duration_s, ttft_s, failed, refused, *tokens))

    def summary(self, now_s: float) -> dict[str, Any]:
        """Ready for JSON; `window_s` is the time that the rates cover, shorter than usual at the start and under load.

        `duration_s` and `ttft_s` (percentiles p50 and p95, seconds) are those of requests that neither failed nor were
        refused, since an error within a millisecond does not describe the model; null where there was none.
        """
        self._forget(now_s)
        covered_s = min(self._window_s, max(now_s - self._begin_s, _MIN_WINDOW_S))
        if self._dropped_s > now_s - covered_s:
            covered_s = max(now_s - self._dropped_s, 0.001)
        successes = self._successes()
        return {
            "window_s": round(covered_s, 3),
            "requests": len(self._outcomes),
            "failed": sum(outcome.failed for outcome in self._outcomes),
            "requests_per_s": round(len(self._outcomes) / covered_s, 3),
            "input_tokens_per_s": round(sum(outcome.input_tokens for outcome in self._outcomes) / covered_s, 3),
            "output_tokens_per_s": round(sum(outcome.output_tokens for outcome in self._outcomes) / covered_s, 3),
            "duration_s": _percentiles([outcome.duration_s for outcome in successes]),
            "ttft_s": _percentiles([outcome.ttft_s for outcome in successes if outcome.ttft_s is not None]),
        }

    def longer_than(self, limit_s: float, now_s: float) -> tuple[int, int]:
        """How many answers took longer, and of how many; what failed or was refused counts for neither."""
        self._forget(now_s)
        successes = self._successes()
        return sum(outcome.duration_s > limit_s for outcome in successes), len(successes)

    def _forget(self, now_s: float) -> None:
        while self._outcomes and self._outcomes[0].at_s <= now_s - self._window_s:
            self._outcomes.popleft()

    def _successes(self) -> list[_Outcome]:
        return [outcome for outcome in self._outcomes if not outcome.failed and not outcome.refused]


def _percentiles(values: Sequence[float]) -> dict[str, float] | None:
    """p50 and p95 by the nearest-rank method; None for no values."""
    if not values:
        return None
    ordered = sorted(values)
    return {f"p{per_cent}": round(ordered[math.ceil(len(ordered) * per_cent / 100) - 1], 6) for per_cent in (50, 95)}
