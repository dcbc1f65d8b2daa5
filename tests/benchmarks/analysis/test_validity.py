"""Each rule finds what it is there to find, says it with its numbers, and leaves a sound measurement alone."""

from dataclasses import dataclass, replace
from typing import Any

import pytest

from benchmarks.analysis import validity
from benchmarks.analysis.measurement import Measurement
from benchmarks.analysis.validity import Facts, check, check_passes, check_size, request_rate
from benchmarks.load.generator import Cost
from clients.record import RequestRecord
from configs.bench import Bench, Validity

BENCH = Bench()
COST = Cost(cpu_s=0.44, wall_s=4.4, lag_p99_s=0.002, lag_max_s=0.01)


def records(count: int = 40, every_s: float = 0.1, **more: Any) -> list[RequestRecord]:
    """Requests at even times, each answered half a second later with the eight tokens asked for."""
    return [
        RequestRecord(
            **{
                "index": number,
                "scheduled_s": 100 + number * every_s,
                "sent_s": 100 + number * every_s,
                "end_s": 100.5 + number * every_s,
                "status": 200,
                "asked_tokens": 8,
                "output_tokens": 8,
                **more,
            }
        )
        for number in range(count)
    ]


def measured(given: list[RequestRecord] | None = None, **more: Any) -> Measurement:
    return Measurement(tuple(given or records()), None, **{"costs": (COST,), "hit_rate": 0.5, **more})


SOUND = Facts(
    rung="litport",
    measurement=measured(),
    under_way=4,
    offered_per_s=10,
    expected_hit_rate=0.5,
    ceiling_per_s=100,
    throttled_share=0.01,
)


@dataclass(frozen=True)
class Case:
    """What a rule is to find (`wrong`), in which words, and what it is to let pass (`right`)."""

    rule: str
    wrong: dict[str, Any]
    parts: tuple[str, ...]
    right: dict[str, Any]


def some_failed() -> list[RequestRecord]:
    return [*records(37), *records(3, error="status 503: full", output_tokens=None, chunk_s=[])]


def slow_half(pause_s: float) -> list[RequestRecord]:
    """A second half that comes so much later than the first."""
    late = records(20)
    for record in late:
        record.scheduled_s, record.sent_s = record.scheduled_s + 2, record.sent_s + 2
        record.end_s += 2 + pause_s
    return [*records(20), *late]


CASES = [
    Case(
        "failed_requests",
        {"measurement": measured(some_failed())},
        ("3 of 40 requests failed", "status 503: full"),
        {"measurement": measured(records(40, status=201))},
    ),
    Case(
        "generator_ceiling",
        {"measurement": measured(costs=(COST, Cost(3.96, 4.4, 0.002, 0.01)))},
        ("kept 90% of a core busy", "more than 50%", "load.generators"),
        {"measurement": measured(costs=(Cost(2.19, 4.4, 0.002, 0.01),) * 2)},
    ),
    Case(
        "generator_ceiling",
        {"ceiling_per_s": 12},
        ("at 76% of its ceiling of 12 requests/s", "more than 50%", "load.generators"),
        {"ceiling_per_s": 19},
    ),
    Case(
        "generator_lag",
        {"measurement": measured(costs=(COST, Cost(0.4, 4.4, 0.08, 0.2)))},
        ("80 ms (p99)", "more than 50 ms"),
        {"measurement": measured(costs=(Cost(0.4, 4.4, 0.049, 0.9),))},
    ),
    Case(
        "offered_rate",
        {"offered_per_s": 20},
        ("10.00 requests/s were sent where 20.00 were offered",),
        {"offered_per_s": 10.4},
    ),
    Case(
        "output_length",
        {"measurement": measured([*records(38), *records(2, output_tokens=7, every_s=2)])},
        ("2 answers have another length", "7 tokens instead of 8"),
        {"measurement": measured(records(output_tokens=None))},
    ),
    Case(
        "warm_cache",
        {"measurement": measured(hit_rate=0.75)},
        ("75% of the prompt tokens", "50% were to be expected"),
        {"measurement": measured(hit_rate=0.46)},
    ),
    Case("warm_cache", {"expected_hit_rate": 0.9}, ("50% of the prompt", "90% were"), {"expected_hit_rate": 0.54}),
    Case(
        "steady_state",
        {"measurement": measured(records(7))},
        ("7 requests are fewer than 8", "no steady state"),
        {"measurement": measured(records(8, every_s=0.5))},
    ),
    Case(
        "steady_state",
        {"under_way": 1, "measurement": measured(records(3))},
        ("3 requests are fewer than 4",),
        {"under_way": 1, "measurement": measured(records(4, every_s=0.5))},
    ),
    Case(
        "steady_state",
        {"measurement": measured(slow_half(3))},  # 20 answers in 2.4 s, and 20 in 5 s
        ("differs by 52% between the two halves",),
        {"measurement": measured(slow_half(0.5))},
    ),
    Case(
        "cpu_throttled",
        {"throttled_share": 0.2},
        ("held the processes back for 20% of the time",),
        {"throttled_share": 0.04},
    ),
]


def found(rule: str, changes: dict[str, Any], bench: Bench = BENCH) -> list[validity.Finding]:
    return [finding for finding in check(replace(SOUND, **changes), bench) if finding.rule == rule]


def ids(case: Case) -> str:
    return f"{case.rule}-{case.parts[0]}"


def test_a_sound_measurement_has_no_finding() -> None:
    assert check(SOUND, BENCH) == []


def test_every_rule_has_a_case() -> None:
    assert {case.rule for case in CASES} == {rule.__name__.removeprefix("_") for rule in validity._RULES}


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_a_rule_finds_what_is_wrong_and_names_the_numbers(case: Case) -> None:
    (finding,) = found(case.rule, case.wrong)
    assert finding.rung == "litport"
    assert "\n" not in finding.message
    for part in case.parts:
        assert part in finding.message, f"{part!r} is not in {finding.message!r}"


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_a_rule_lets_pass_what_is_within_its_limit(case: Case) -> None:
    assert found(case.rule, case.right) == []


def test_a_bare_model_is_judged_by_what_it_has() -> None:
    bare = Facts("transformers", measured(costs=(), hit_rate=None), under_way=1)
    assert check(bare, BENCH) == []


def test_one_measurement_may_have_several_findings() -> None:
    several = replace(SOUND, throttled_share=0.5, ceiling_per_s=10, offered_per_s=1)
    assert {finding.rule for finding in check(several, BENCH)} == {"cpu_throttled", "generator_ceiling", "offered_rate"}


@pytest.mark.parametrize(
    ("rule", "limits"),
    [
        ("generator_lag", Validity(max_lag_s=0.1)),
        ("offered_rate", Validity(max_rate_error=0.6)),
        ("warm_cache", Validity(max_hit_rate_error=0.3)),
        ("cpu_throttled", Validity(max_throttled=0.3)),
    ],
)
def test_the_limits_are_those_of_the_settings(rule: str, limits: Validity) -> None:
    case = next(case for case in CASES if case.rule == rule)
    assert found(rule, case.wrong)
    assert found(rule, case.wrong, Bench(validity=limits)) == []


def test_throughput_of_what_generates_nothing_is_that_of_its_requests() -> None:
    pictures = measured(records(asked_tokens=None, output_tokens=None))
    assert found("steady_state", {"measurement": pictures}) == []


@pytest.mark.parametrize(
    ("count", "percentiles", "words"),
    [
        (49, [50, 90], "49 requests do not support p90"),
        (9, [50, 90, 99], "9 requests do not support p50 and p90 and p99"),
        (499, [99], "499 requests do not support p99"),
    ],
)
def test_too_few_requests_for_a_percentile_are_a_finding(count: int, percentiles: list[int], words: str) -> None:
    (finding,) = check_size("vllm", count, Bench(percentiles=percentiles))
    assert (finding.rule, finding.rung) == ("sample_size", "vllm")
    assert words in finding.message


@pytest.mark.parametrize(("count", "percentiles"), [(50, [50, 90]), (10, [50]), (500, [99]), (1, [])])
def test_enough_requests_for_the_percentiles_are_none(count: int, percentiles: list[int]) -> None:
    assert check_size("vllm", count, Bench(percentiles=percentiles)) == []


def test_the_request_rate_counts_from_the_first_due_to_the_last_answered() -> None:
    assert request_rate(measured()) == pytest.approx(40 / 4.4)


@pytest.mark.parametrize(("slower", "is_found"), [(1.0, False), (1.4, False), (1.5, True), (17.0, True)])
def test_passes_that_differ_by_more_than_a_drift_are_a_finding(slower: float, is_found: bool) -> None:
    one = measured()
    other = measured(records(every_s=(slower * one.duration_s - 0.5) / 39))
    found = check_passes("model", [one, other], Bench())
    assert [finding.rule for finding in found] == ["passes"] * is_found
    assert all(f"differs by {1 - 1 / slower:.0%} between the passes" in finding.message for finding in found)
    assert check_passes("model", [one], Bench()) == []
