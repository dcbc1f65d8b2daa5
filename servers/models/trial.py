"""The trial of a new version: a share of a model's requests goes to it, and its figures are watched."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar

from servers.models.recent import Recent

SwapResult = Literal["ok", "refused", "rolled_back"]
SWAP_RESULTS: tuple[SwapResult, ...] = ("ok", "refused", "rolled_back")


class SwapError(Exception):
    """A model was not changed as it should; the message says why, and what serves."""


# Fewer failures are chance; fewer answers have no 95th percentile.
_FEWEST_FAILURES = 2
_FEWEST_ANSWERS = 20
_SLACK_S = 0.02


@dataclass(frozen=True)
class Limits:
    """How much worse than the old version a new one may be.

    `errors` is the difference of their shares of failed requests, `slowdown` the ratio of their latencies, of which
    20 ms count as nothing. `equal` is the least share of equal answers in a comparison.
    """

    errors: float = 0.01
    slowdown: float = 1.5
    equal: float = 0.9

    def is_slower(self, new_s: float | None, old_s: float | None) -> bool:
        """Whether the new latency is too long."""
        return new_s is not None and old_s is not None and new_s > old_s * self.slowdown + _SLACK_S


class Version(Protocol):
    """A model, as far as a trial reads it."""

    @property
    def recent(self) -> Recent:
        """The last requests that it answered."""
        ...


_Version = TypeVar("_Version", bound=Version)


class Trial(Generic[_Version]):
    """A `version` beside the one that a model's name leads to, with `percent` of its requests."""

    def __init__(self, version: _Version, limits: Limits) -> None:
        self.version = version
        self.percent = 0
        self._limits = limits
        self._account = 0
        self._baseline: Mapping[str, Any] | None = None

    def take(self) -> bool:
        """Whether the next request goes to the new version: evenly, so many of each hundred."""
        self._account += self.percent
        if self._account < 100:
            return False
        self._account -= 100
        return True

    def problem(self, old: _Version) -> str:
        """In what the new version is worse than the old one by the requests of the last half minute; "" for nothing.

        Once the old one gets no more of them, its figures are those of its last requests.
        """
        now_s = time.monotonic()
        before, after = old.recent.summary(now_s), self.version.recent.summary(now_s)
        if before["requests"] >= _FEWEST_ANSWERS or self._baseline is None:
            self._baseline = before
        return self._compare(self._baseline, after)

    def _compare(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
        old_share, new_share = _failed_share(before), _failed_share(after)
        if after["failed"] >= _FEWEST_FAILURES and new_share > old_share + self._limits.errors:
            count = f"{after['failed']} of its {after['requests']} requests failed"
            return f"{count} ({new_share:.1%}; of the old version's {old_share:.1%})"
        old_s, new_s = _p95_s(before), _p95_s(after)
        if after["requests"] >= _FEWEST_ANSWERS and self._limits.is_slower(new_s, old_s):
            return f"its p95 is {new_s:.3f} s, the old version's {old_s:.3f} s"
        return ""


def _failed_share(summary: Mapping[str, Any]) -> float:
    return float(summary["failed"] / max(1, summary["requests"]))


def _p95_s(summary: Mapping[str, Any]) -> float | None:
    return None if summary["duration_s"] is None else float(summary["duration_s"]["p95"])
