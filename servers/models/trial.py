"""The trial of a new version: a share of a model's requests goes to it, and its figures are watched."""

import math
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
# How likely a version that is just quick enough may be taken for a slow one, at each of many looks.
_LARGEST_CHANCE = 0.001


@dataclass(frozen=True)
class Limits:
    """How much worse than the old version a new one may be.

    `errors` is the difference of their shares of failed requests, `slowdown` the ratio of their latencies, of which
    20 ms count as nothing. `equal` is the least share of equal answers in a comparison.
    """

    errors: float = 0.01
    slowdown: float = 1.5
    equal: float = 0.9

    def longest_s(self, old_s: float) -> float:
        """How long may take what took the old version so long."""
        return old_s * self.slowdown + _SLACK_S


def chance(number: int, count: int, share: float) -> float:
    """How likely so many of `count`, or more, come about by chance where this share of them is usual (binomial)."""
    logs = (math.log(share), math.log1p(-share))
    terms = (
        math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1) + k * logs[0] + (count - k) * logs[1]
        for k in range(number, count + 1)
    )
    return math.fsum(map(math.exp, terms))


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
        return self._compare(self._baseline, after, now_s)

    def _compare(self, before: Mapping[str, Any], after: Mapping[str, Any], now_s: float) -> str:
        old_share, new_share = _failed_share(before), _failed_share(after)
        if after["failed"] >= _FEWEST_FAILURES and new_share > old_share + self._limits.errors:
            count = f"{after['failed']} of its {after['requests']} requests failed"
            return f"{count} ({new_share:.1%}; of the old version's {old_share:.1%})"
        old_s, new_s = _p95_s(before), _p95_s(after)
        if new_s is None or old_s is None or new_s <= (longest_s := self._limits.longest_s(old_s)):
            return ""
        late, answers = self.version.recent.longer_than(longest_s, now_s)
        if answers < _FEWEST_ANSWERS or chance(late, answers, 0.05) > _LARGEST_CHANCE:
            return ""
        return f"its p95 is {new_s:.3f} s, the old version's {old_s:.3f} s ({late} of {answers} answers took too long)"


def _failed_share(summary: Mapping[str, Any]) -> float:
    return float(summary["failed"] / max(1, summary["requests"]))


def _p95_s(summary: Mapping[str, Any]) -> float | None:
    return None if summary["duration_s"] is None else float(summary["duration_s"]["p95"])
