"""The requests of the last half minute, a model: what `litport status` shows of its pace.

Metrics are for whoever keeps them; this is for a person who looks now, with no Prometheus at hand. It remembers when
and how each request ended, and refuses to remember more than the last few thousand: when they do not reach back over
the whole window, the rates are those of the time that they do cover.
"""

import math
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

# One request in the first instant of a platform is not a thousand a second.
_LEAST_S = 1.0


class _End(NamedTuple):
    at_s: float
    duration_s: float
    ttft_s: float | None
    failed: bool
    input_tokens: int
    output_tokens: int


class Recent:
    """The requests to one model that ended within the last `window_s` seconds, at most `most` of them.

    All moments are those of `time.monotonic()`; `begin_s` is when the counting began, by default now.
    """

    def __init__(self, window_s: float = 30.0, most: int = 4096, begin_s: float | None = None) -> None:
        self._window_s = window_s
        self._begin_s = time.monotonic() if begin_s is None else begin_s
        self._ends: deque[_End] = deque(maxlen=most)
        self._forgot_s = -math.inf

    def note(
        self,
        now_s: float,
        duration_s: float,
        ttft_s: float | None = None,
        *,
        failed: bool = False,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
    ) -> None:
        """A request ended; None is "not known", which counts as no tokens."""
        if len(self._ends) == self._ends.maxlen:
            self._forgot_s = self._ends[0].at_s
        self._ends.append(_End(now_s, duration_s, ttft_s, failed, input_tokens or 0, output_tokens or 0))

    def summary(self, now_s: float) -> dict[str, Any]:
        """Ready for JSON: `window_s` is the time that the rates are over, shorter than usual where less is known.

        `duration_s` and `ttft_s` (percentiles p50 and p95) are those of requests that did not fail, as a refusal within
        a millisecond says nothing about the model; null where there was none.
        """
        while self._ends and self._ends[0].at_s <= now_s - self._window_s:
            self._ends.popleft()
        known_s = min(self._window_s, max(now_s - self._begin_s, _LEAST_S))
        if self._forgot_s > now_s - known_s:
            known_s = max(now_s - self._forgot_s, 0.001)
        good = [end for end in self._ends if not end.failed]
        return {
            "window_s": round(known_s, 3),
            "requests": len(self._ends),
            "failed": len(self._ends) - len(good),
            "requests_per_s": round(len(self._ends) / known_s, 3),
            "input_tokens_per_s": round(sum(end.input_tokens for end in self._ends) / known_s, 3),
            "output_tokens_per_s": round(sum(end.output_tokens for end in self._ends) / known_s, 3),
            "duration_s": _percentiles([end.duration_s for end in good]),
            "ttft_s": _percentiles([end.ttft_s for end in good if end.ttft_s is not None]),
        }


def _percentiles(values: Sequence[float]) -> dict[str, float] | None:
    """The smallest value that so many per cent do not exceed."""
    if not values:
        return None
    ordered = sorted(values)
    return {f"p{per_cent}": round(ordered[math.ceil(len(ordered) * per_cent / 100) - 1], 6) for per_cent in (50, 95)}
