"""The rows of each kind of server add up to what the client measured, and what does not fit is said."""

from typing import Any

import pytest

from benchmarks.analysis import breakdown
from benchmarks.analysis.breakdown import Breakdown, break_down_steps
from benchmarks.rungs.harness import row_readers
from benchmarks.rungs.litserve import LitServeLayer
from clients.record import RequestRecord

# Two requests: each due at 0, sent 0.1 late; answered after 2.0 and 3.0 seconds more. e2e is 2.6 on average.
RECORDS = [
    RequestRecord(index=0, scheduled_s=0.0, sent_s=0.1, end_s=2.1),
    RequestRecord(index=1, scheduled_s=0.0, sent_s=0.1, end_s=3.1),
]
E2E_S = 2.6


def series(count: float = 2, **means: float) -> dict[str, float]:
    """Sums and counts of histograms whose means are given."""
    names = {name.replace("__", ":"): mean for name, mean in means.items()}
    sums = {f"{name}_sum": mean * count for name, mean in names.items()}
    return {**sums, **{f"{name}_count": float(count) for name in names}}


def steps(count: float = 2, **means: float) -> dict[str, float]:
    """LitServe's counters."""
    seconds = {f"litserve_step_seconds_total/{step}": mean * count for step, mean in means.items()}
    return {**seconds, **{f"litserve_step_requests_total/{step}": float(count) for step in means}}


ENGINE = {
    "vllm__e2e_request_latency_seconds": 2.0,
    "vllm__time_to_first_token_seconds": 0.75,
    "vllm__request_queue_time_seconds": 0.25,
    "vllm__request_prefill_time_seconds": 0.375,
    "vllm__request_decode_time_seconds": 1.125,
}
ENGINE_ROWS = {
    "template, tokenise, hand-over": 0.125,
    "scheduler queue": 0.25,
    "prefill": 0.375,
    "decode": 1.125,
    "output-hop drift": 0.125,
}
VLLM = series(http_request_duration_seconds=2.25, **ENGINE)
DOOR = series(litport_request_duration_seconds=2.45, litport_upstream_duration_seconds=2.4)
LITSERVE = {"http": 2.3, "receive": 0.1, "queue": 0.5, "batch_wait": 0.2, "decode": 0.05, "predict": 1.2}
NAIVE = series(naive_http_seconds=2.25, naive_model_seconds=2.0)
# Means that the client gives: 0.1 late, 2.5 from sending to the answer.
HOP = "network, accept, client read"
SERVERS: dict[str, tuple[dict[str, float], dict[str, float] | None, dict[str, float]]] = {
    "vLLM": (VLLM, None, {HOP: 0.25, "HTTP, JSON, SSE in vLLM": 0.25, **ENGINE_ROWS}),
    "vLLM behind the front door": (
        VLLM,
        DOOR,
        {
            HOP: 0.05,
            "front door": 0.05,
            "hop to the model's process": 0.15,
            "HTTP, JSON, SSE in vLLM": 0.25,
            **ENGINE_ROWS,
        },
    ),
    "vLLM without a server": (series(**ENGINE), None, {"engine loop": 0.5, **ENGINE_ROWS}),
    "the worker host behind the front door": (
        steps(**LITSERVE, encode=0.0625),
        DOOR,
        {
            HOP: 0.05,
            "front door": 0.05,
            "hop to the model's process": 0.1,
            "hand-over and parsing": 0.1,
            "queue": 0.5,
            "batch wait": 0.2,
            "decode": 0.05,
            "predict": 1.2,
            "encode": 0.0625,
            "return": 0.1875,
        },
    ),
    "plain LitServe": (
        steps(http=2.3, receive=0.1, decode=0.05, predict=1.2, encode=0.05),
        None,
        {
            HOP: 0.2,
            "HTTP and parsing in LitServe": 0.1,
            "decode": 0.05,
            "predict": 1.2,
            "encode": 0.05,
            "queue, batch wait and return": 0.9,
        },
    ),
    "naive": (NAIVE, None, {HOP: 0.25, "HTTP and parsing": 0.25, "model": 2.0}),
    "naive behind the front door": (
        NAIVE,
        DOOR,
        {
            HOP: 0.05,
            "front door": 0.05,
            "hop to the model's process": 0.15,
            "HTTP and parsing": 0.25,
            "model": 2.0,
        },
    ),
    "unknown": ({"somebody_elses_seconds_sum": 3.0}, None, {"server": 2.5}),
    "unknown behind the front door": ({}, DOOR, {HOP: 0.05, "front door": 0.05, "server": 2.4}),
    "silent": ({}, {}, {"server": 2.5}),
}


def break_down(
    records: list[RequestRecord], server: dict[str, float], door: dict[str, float] | None = None
) -> Breakdown:
    return breakdown.break_down(records, server, door, row_readers())


def rows(found: Breakdown) -> dict[str, float]:
    return {row.layer.label: row.seconds for row in found.rows}


@pytest.mark.parametrize("name", SERVERS)
def test_the_rows_of_a_server_are_the_differences_of_what_was_measured_and_add_up(name: str) -> None:
    server, door, expected = SERVERS[name]
    found = break_down(RECORDS, server, door)
    assert rows(found) == pytest.approx({"client lateness": 0.1, **expected})
    assert list(rows(found)) == ["client lateness", *expected]
    assert found.e2e_s == pytest.approx(E2E_S)
    assert sum(rows(found).values()) == pytest.approx(E2E_S)
    assert found.closure_error == pytest.approx(0, abs=1e-9)
    assert found.note == ""


def test_intervals_that_do_not_lie_within_each_other_are_closure_error() -> None:
    wider = series(litport_request_duration_seconds=2.45, litport_upstream_duration_seconds=2.71)
    found = break_down(RECORDS, VLLM, wider)
    assert rows(found)["front door"] == pytest.approx(-0.26)
    assert sum(rows(found).values()) == pytest.approx(E2E_S)
    assert found.closure_error == pytest.approx(0.26 / E2E_S)
    assert found.note == ""


def test_closure_error_is_the_sum_of_all_rows_below_zero() -> None:
    engine = {**ENGINE, "vllm__request_queue_time_seconds": 0.5, "vllm__request_decode_time_seconds": 1.5}
    found = break_down(RECORDS, series(http_request_duration_seconds=2.25, **engine))
    assert rows(found)["template, tokenise, hand-over"] == pytest.approx(-0.125)
    assert rows(found)["output-hop drift"] == pytest.approx(-0.25)
    assert found.closure_error == pytest.approx(0.375 / E2E_S)


MISCOUNTED: list[tuple[dict[str, float], dict[str, float] | None, str]] = [
    ({**VLLM, **series(3, http_request_duration_seconds=2.25)}, None, "counted 3 requests, the client 2"),
    ({**VLLM, **series(1, vllm__request_decode_time_seconds=1.125)}, None, "counted 1 requests, the client 2"),
    (VLLM, {**DOOR, **series(4, litport_upstream_duration_seconds=2.4)}, "counted 4 requests, the client 2"),
    ({**steps(**LITSERVE), **steps(1, predict=1.2), **steps(3, queue=0.5)}, None, "counted 1, 3 requests"),
    ({**steps(**LITSERVE), **steps(0, batch_wait=0.0)}, None, "counted 0 requests"),
    (series(0, naive_http_seconds=0.0, naive_model_seconds=0.0), None, "counted 0 requests, the client 2"),
    ({"vllm:e2e_request_latency_seconds_sum": 4.0}, None, "counted 0 requests, the client 2"),
]


@pytest.mark.parametrize(("server", "door", "words"), MISCOUNTED)
def test_a_server_that_counted_other_requests_is_told_and_not_closed(
    server: dict[str, float], door: dict[str, float] | None, words: str
) -> None:
    found = break_down(RECORDS, server, door)
    assert found.closure_error is None
    assert words in found.note
    assert found.e2e_s == pytest.approx(E2E_S)


def bare(*ends_s: float, **more: Any) -> list[RequestRecord]:
    return [RequestRecord(index=index, scheduled_s=0, sent_s=0.5, end_s=end_s) for index, end_s in enumerate(ends_s)]


def test_a_model_without_a_server_has_its_own_steps_and_the_loop_around_them() -> None:
    found = break_down_steps(
        bare(2.0, 4.0),
        [(LitServeLayer.DECODE, 0.5), (LitServeLayer.PREDICT, 3.0), (LitServeLayer.ENCODE, 0.25)],
    )
    assert rows(found) == pytest.approx(
        {"waiting for the model": 0.5, "decode": 0.25, "predict": 1.5, "encode": 0.125, "loop": 0.625}
    )
    assert (found.e2e_s, found.note) == (3.0, "")
    assert found.closure_error == pytest.approx(0)


def test_steps_that_take_longer_than_the_whole_are_closure_error() -> None:
    found = break_down_steps(bare(2.0, 4.0), [(LitServeLayer.PREDICT, 6.0)])
    assert rows(found)["loop"] == pytest.approx(-0.5)
    assert found.closure_error == pytest.approx(0.5 / 3)
