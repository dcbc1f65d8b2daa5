"""Whether a measurement counts: each rule looks for one reason not to believe it.

A result with a finding is kept and shown, with the finding above it, and the run ends with an error. A rule is skipped
only where there is nothing to measure: a bare model has no load generator.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from benchmarks.analysis.figures import least_count, supports
from benchmarks.analysis.measurement import Measurement
from configs.bench import Bench

_LEAST_REQUESTS = 4


@dataclass(frozen=True)
class Facts:
    """What the rules look at: one measurement of one rung, and the load that was planned for it.

    `under_way` is how many requests the rung works on at a time: one, where it answers one after the other.

    `ceiling_per_s` is what the load generator reaches against a server that does nothing; `throttled_share` the share
    of the time for which the CPU quota held the processes back (None: there is no quota).
    """

    rung: str
    measurement: Measurement
    under_way: int
    offered_per_s: float | None = None
    expected_hit_rate: float | None = None
    ceiling_per_s: float | None = None
    throttled_share: float | None = None


@dataclass(frozen=True)
class Finding:
    """Why a result does not count."""

    rule: str
    rung: str
    message: str


def check(facts: Facts, bench: Bench) -> list[Finding]:
    """What is wrong with one measurement."""
    return [Finding(rule.__name__.strip("_"), facts.rung, message) for rule in _RULES for message in rule(facts, bench)]


def check_size(rung: str, count: int, bench: Bench) -> list[Finding]:
    """Whether a rung's passes together support the percentiles of the settings."""
    unsupported = [f"p{percentile}" for percentile in bench.percentiles if not supports(count, percentile)]
    if not unsupported:
        return []
    passes, least = max(1, bench.passes), least_count(max(bench.percentiles))
    message = (
        f"{count} requests do not support {' and '.join(unsupported)}, which takes {least}: set "
        f"bench.workload.requests to {math.ceil(least / passes)} or more, or bench.percentiles to less"
    )
    return [Finding("sample_size", rung, message)]


def check_passes(rung: str, passes: Sequence[Measurement], bench: Bench) -> list[Finding]:
    """Whether a rung's passes agree about its throughput. Those with a failed request are not compared."""
    rates = [one.throughput_per_s for one in passes if not any(record.failed for record in one.records)]
    if len(rates) < 2:
        return []
    difference = 1 - min(rates) / max(rates)
    if difference <= bench.validity.max_drift:
        return []
    per_s = ", ".join(f"{rate:.2f}" for rate in rates)
    message = (
        f"throughput differs by {difference:.0%} between the passes ({per_s} a second): something else was at work"
    )
    return [Finding("passes", rung, message)]


def _failed_requests(facts: Facts, _: Bench) -> Iterator[str]:
    failed = [record for record in facts.measurement.records if record.failed]
    if failed:
        yield f"{len(failed)} of {len(facts.measurement.records)} requests failed: {failed[0].error}"


def _generator_ceiling(facts: Facts, bench: Bench) -> Iterator[str]:
    limit = bench.validity.max_generator_load
    busiest = max((cost.cpu_s / cost.wall_s for cost in facts.measurement.costs), default=0.0)
    if busiest > limit:
        yield f"the load generator kept {busiest:.0%} of a core busy, more than {limit:.0%}; use more load.generators"
    if facts.ceiling_per_s:
        share = request_rate(facts.measurement) / facts.ceiling_per_s
        if share > limit:
            yield (
                f"the load generator ran at {share:.0%} of its ceiling of {facts.ceiling_per_s:.0f} requests/s, more "
                f"than {limit:.0%}; use more load.generators"
            )


def _generator_lag(facts: Facts, bench: Bench) -> Iterator[str]:
    limit_s = bench.validity.max_lag_s
    lag_s = max((cost.lag_p99_s for cost in facts.measurement.costs), default=0.0)
    if lag_s > limit_s:
        yield f"the load generator's loop lagged by {lag_s * 1000:.0f} ms (p99), more than {limit_s * 1000:.0f} ms"


def _offered_rate(facts: Facts, bench: Bench) -> Iterator[str]:
    if facts.offered_per_s is None:
        return
    sent_s = sorted(record.sent_s for record in facts.measurement.records)
    achieved = (len(sent_s) - 1) / (sent_s[-1] - sent_s[0]) if sent_s[-1] > sent_s[0] else 0.0
    if abs(achieved / facts.offered_per_s - 1) > bench.validity.max_rate_error:
        yield f"{achieved:.2f} requests/s were sent where {facts.offered_per_s:.2f} were offered"


def _output_length(facts: Facts, _: Bench) -> Iterator[str]:
    deviating = [
        record
        for record in facts.measurement.records
        if record.asked_tokens is not None
        and record.output_tokens is not None
        and record.output_tokens != record.asked_tokens
    ]
    if deviating:
        first = deviating[0]
        yield (
            f"{len(deviating)} answers have another length than asked for: {first.output_tokens} tokens instead of "
            f"{first.asked_tokens}, for one"
        )


def _warm_cache(facts: Facts, bench: Bench) -> Iterator[str]:
    rate, expected = facts.measurement.hit_rate, facts.expected_hit_rate
    if rate is not None and expected is not None and abs(rate - expected) > bench.validity.max_hit_rate_error:
        yield f"the prefix cache answered {rate:.0%} of the prompt tokens where {expected:.0%} were to be expected"


def _steady_state(facts: Facts, bench: Bench) -> Iterator[str]:
    records = sorted(facts.measurement.records, key=lambda record: record.end_s)
    least = max(_LEAST_REQUESTS, 2 * facts.under_way)
    if len(records) < least:
        yield f"{len(records)} requests are fewer than {least}, twice those under way: no steady state was reached"
        return
    if any(record.failed for record in records):
        return
    middle = len(records) // 2
    begin_s, turn_s, end_s = facts.measurement.begin_s, records[middle - 1].end_s, records[-1].end_s
    halves = [
        sum(record.output_tokens or 1 for record in half) / max(spent_s, 1e-9)
        for half, spent_s in ((records[:middle], turn_s - begin_s), (records[middle:], end_s - turn_s))
    ]
    drift = abs(halves[1] - halves[0]) / max(halves)
    if drift > bench.validity.max_drift:
        yield f"throughput differs by {drift:.0%} between the two halves: no steady state was reached"


def _cpu_throttled(facts: Facts, bench: Bench) -> Iterator[str]:
    if facts.throttled_share is not None and facts.throttled_share > bench.validity.max_throttled:
        yield f"the CPU quota held the processes back for {facts.throttled_share:.0%} of the time"


def request_rate(measurement: Measurement) -> float:
    """Answered requests a second, from the first that was due to the last answer."""
    return len(measurement.records) / max(measurement.duration_s, 1e-9)


_RULES: Sequence[Callable[[Facts, Bench], Iterator[str]]] = (
    _failed_requests,
    _generator_ceiling,
    _generator_lag,
    _offered_rate,
    _output_length,
    _warm_cache,
    _steady_state,
    _cpu_throttled,
)
