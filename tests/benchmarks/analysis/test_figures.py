"""Figures that can be worked out by hand: latencies, rates, goodput, and what is not there."""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest

from benchmarks.analysis import figures
from benchmarks.analysis.figures import Pass, meets, supports
from benchmarks.analysis.stretches import Window
from clients.record import RequestRecord
from configs.bench import Slo


def summarise(passes: Sequence[Pass], windows: Sequence[Window], slo: Slo) -> dict[str, Any]:
    """The figures as `result.json` has them."""
    return dict(msgspec.to_builtins(figures.summarise(passes, windows, slo)))


def distribution(values: Sequence[float | None]) -> dict[str, Any] | None:
    document: dict[str, Any] | None = msgspec.to_builtins(figures.distribution(values))
    return document


def rate(*arguments: Any) -> dict[str, Any] | None:
    document: dict[str, Any] | None = msgspec.to_builtins(figures.rate(*arguments))
    return document


def record(end_s: float = 1.0, **more: Any) -> RequestRecord:
    given = {"index": 0, "scheduled_s": end_s - 1, "sent_s": end_s - 1, "end_s": end_s, "status": 200, **more}
    return RequestRecord(**given)


def answered(count: int, begin_s: float, end_s: float, **more: Any) -> list[RequestRecord]:
    """So many answers, evenly over a window."""
    step_s = (end_s - begin_s) / count
    return [record(begin_s + step_s * (number + 1), **more) for number in range(count)]


def one(_: RequestRecord) -> float:
    return 1.0


def width(interval: list[float]) -> float:
    return interval[1] - interval[0]


def test_a_distribution_has_the_mean_and_the_percentiles_of_its_values() -> None:
    found = distribution([float(value) for value in range(1, 102)])
    assert found is not None
    assert (found["n"], found["mean"], found["p50"], found["p90"]) == (101, 51, 51, 91)


@pytest.mark.parametrize(
    ("count", "known"),
    [(9, ()), (10, (50,)), (49, (50,)), (50, (50, 90)), (499, (50, 90)), (500, (50, 90, 99))],
)
def test_a_percentile_is_given_only_where_five_observations_lie_beyond_it(count: int, known: tuple[int, ...]) -> None:
    found = distribution([float(value) for value in range(count)])
    assert found is not None
    for percentile in (50, 90, 99):
        assert supports(count, percentile) == (percentile in known)
        assert (found[f"p{percentile}"] is not None) == (percentile in known)
        assert (found[f"p{percentile}_ci"] is not None) == (percentile in known)


def test_what_was_not_measured_counts_for_nothing() -> None:
    assert distribution([]) is None
    assert distribution([None, None]) is None
    found = distribution([1.0, None, 3.0])
    assert found is not None
    assert (found["n"], found["mean"]) == (2, 2)


def test_intervals_hold_what_they_are_of_and_shrink_with_more_values() -> None:
    draw = np.random.default_rng(1)
    few, many = (distribution(list(draw.exponential(1.0, count))) for count in (100, 2500))
    assert few is not None
    assert many is not None
    for found in (few, many):
        for name in ("mean", "p50", "p90"):
            assert found[f"{name}_ci"][0] < found[name] < found[f"{name}_ci"][1]
    assert width(many["mean_ci"]) < width(few["mean_ci"]) / 3  # a fifth, but for chance
    again = distribution([1.0, 2.0, 4.0])
    assert again == distribution([1.0, 2.0, 4.0])


def test_a_rate_counts_over_each_pass_and_over_all_the_time() -> None:
    passes = [answered(10, 0, 10), answered(20, 20, 25)]
    found = rate(passes, [(0, 10), (20, 25)], one)
    assert found is not None
    assert found["passes"] == [1, 4]
    assert found["value"] == 2
    assert found["ci"][0] < 2 < found["ci"][1]


def test_the_interval_of_a_rate_shrinks_with_more_passes() -> None:
    draw = np.random.default_rng(2)
    passes = [[record(at_s, sent_s=at_s - 0.2) for at_s in draw.uniform(0, 10, 200)] for _ in range(9)]
    few, many = (rate(passes[:count], [(0.0, 10.0)] * count, one) for count in (1, 9))
    assert few is not None
    assert many is not None
    assert width(many["ci"]) < width(few["ci"]) / 2


def test_a_longer_pass_counts_for_more() -> None:
    found = rate([answered(200, 0, 100), answered(200, 100, 110)], [(0, 100), (100, 110)], one)
    assert found is not None
    assert found["value"] == pytest.approx(400 / 110)
    assert found["ci"][0] < found["value"] < found["ci"][1]


def test_failed_requests_are_errors_and_no_throughput() -> None:
    failed = [record(3, error="status 503: full"), record(4, error="status 503: busy"), record(5, error="TimeoutError")]
    found = summarise([[*answered(5, 0, 10, output_tokens=4, chunk_s=[]), *failed]], [(0, 10)], Slo())
    assert (found["requests"], found["failed"]) == (8, 3)
    assert found["errors"] == {"status 503": 2, "TimeoutError": 1}
    assert found["request_throughput_per_s"]["value"] == 0.5
    assert found["output_throughput_per_s"]["value"] == 2
    assert found["e2e_s"]["n"] == 5
    assert found["duration_s"] == 10


def test_a_pass_in_which_all_failed_counts_as_time_without_answers() -> None:
    lost = [record(15, error="status 500: no")]
    found = rate([answered(10, 0, 10), lost], [(0, 10), (10, 20)], one)
    assert found is not None
    assert (found["value"], found["passes"]) == (0.5, [1, 0])
    assert found["ci"][0] <= found["value"] <= found["ci"][1]


def test_goodput_counts_what_keeps_every_objective() -> None:
    quick = answered(4, 0, 10, chunk_s=[1.0], output_tokens=1)
    for each in quick:
        each.chunk_s = [each.scheduled_s + 0.1]
    slow = answered(6, 0, 10)
    for each in slow:
        each.chunk_s = [each.scheduled_s + 0.9]
    passes, windows = [[*quick, *slow]], [(0.0, 10.0)]
    assert summarise(passes, windows, Slo())["goodput_per_s"] is None
    assert summarise(passes, windows, Slo(ttft_s=0.5))["goodput_per_s"]["value"] == pytest.approx(0.4)
    assert summarise(passes, windows, Slo(ttft_s=0.5, e2e_s=0.9))["goodput_per_s"]["value"] == 0
    assert summarise(passes, windows, Slo(e2e_s=1.1))["goodput_per_s"]["value"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("given", "slo", "kept"),
    [
        ({}, Slo(), True),
        ({}, Slo(e2e_s=1), True),
        ({"chunk_s": [0.2], "output_tokens": 1}, Slo(ttft_s=0.1), False),
        ({"chunk_s": [0.2], "output_tokens": 1}, Slo(tpot_s=9), False),  # one token has no time after the first
        ({"chunk_s": [0.2, 1.0], "output_tokens": 5}, Slo(tpot_s=0.21), True),
        ({}, Slo(ttft_s=9), False),
        ({"error": "status 500"}, Slo(e2e_s=9), False),
    ],
)
def test_what_was_not_measured_meets_no_objective(given: dict[str, Any], slo: Slo, kept: bool) -> None:
    assert meets(record(**given), slo) == kept


def test_time_per_token_counts_tokens_and_not_chunks() -> None:
    streamed = record(3, scheduled_s=0, chunk_s=[1.0, 2.0, 3.0], output_tokens=9, prompt_tokens=5)
    found = summarise([[streamed]], [(0, 3)], Slo())
    assert found["ttft_s"]["mean"] == 1
    assert found["tpot_s"]["mean"] == 0.25
    assert (found["itl_s"]["n"], found["itl_s"]["mean"]) == (2, 1)
    assert (found["prompt_tokens"], found["output_tokens"]) == (5, 9)
    assert found["output_throughput_per_s"]["value"] == 3


def test_latency_counts_from_the_time_a_request_was_due() -> None:
    late = record(5, scheduled_s=1, sent_s=3, chunk_s=[4.0])
    found = summarise([[late]], [(1, 5)], Slo())
    assert (found["e2e_s"]["mean"], found["ttft_s"]["mean"]) == (4, 3)


def test_a_figure_of_nothing_is_none() -> None:
    whole = summarise([answered(4, 0, 8)], [(0, 8)], Slo())
    for name in ("output_throughput_per_s", "ttft_s", "tpot_s", "itl_s", "prompt_tokens", "output_tokens"):
        assert whole[name] is None
    assert whole["request_throughput_per_s"]["value"] == 0.5
    lost = summarise([[record(1, error="refused"), record(2, error="refused")]], [(0, 2)], Slo(e2e_s=1))
    assert lost["errors"] == {"refused": 2}
    for name in ("output_throughput_per_s", "e2e_s", "ttft_s"):
        assert lost[name] is None
