"""The verdict names the row that takes the time, why, and a setting that is really there."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from benchmarks.analysis import verdict
from benchmarks.analysis.breakdown import Breakdown, Row, break_down
from benchmarks.analysis.verdict import Advice, Situation, Verdict, judge
from clients.record import RequestRecord
from configs.model import option_name
from configs.settings import LitServeModel, VllmModel


def vllm(**args: Any) -> VllmModel:
    return VllmModel(engine="vllm", source="m", args={name.replace("_", "-"): value for name, value in args.items()})


def litserve(**more: Any) -> LitServeModel:
    return LitServeModel(engine="litserve", api="embedding", **more)


def situation(model: VllmModel | LitServeModel, rows: dict[str, float], **more: Any) -> Situation:
    """Rows as shares of two seconds; what is missing to the whole is lateness."""
    rest = 1 - sum(rows.values())
    named = {"client lateness": rest, **rows} if "client lateness" not in rows else rows
    time = Breakdown(tuple(Row(name, 2 * share) for name, share in named.items()), 2.0, 0.0)
    given: dict[str, Any] = {
        "model": model,
        "time": time,
        "users": 16,
        "cores": 4,
        "on_cpu": True,
        "reference": "vllm-offline",
        "ratio": 0.875,
        "busy_share": 0.5,
    }
    return Situation(**{**given, **more})


# Row, model, what else holds; words of the cause, advice.
CAUSES = [
    ("decode", vllm(), {}, "the model itself: 96% of the time it generates, each step for all 16 requests", None),
    ("decode", litserve(), {}, "decoding the requests takes 96%", None),
    ("prefill", vllm(), {}, "reading the prompts takes 96%", None),
    (
        "prefill",
        vllm(enable_prefix_caching=False),
        {},
        "prefix caching is off",
        Advice("args.enable-prefix-caching", True),
    ),
    ("template, tokenise, hand-over", vllm(), {}, "wait 96% of the time for the step that is running", None),
    ("scheduler queue", vllm(max_num_seqs=4), {}, "takes 4 at a time, of 16", Advice("args.max-num-seqs", 16)),
    ("scheduler queue", vllm(max_num_seqs=16), {}, "the KV cache is full", None),
    ("HTTP, JSON, SSE in vLLM", vllm(), {}, "one for each token", Advice("args.stream-interval", 4)),
    ("HTTP, JSON, SSE in vLLM", vllm(stream_interval=2), {}, "to write events", None),
    ("queue", litserve(workers_per_device=4), {"busy_share": 0.9}, "the model is the limit", None),
    ("queue", litserve(), {"busy_share": 0.9}, "threads of a worker wait", Advice("workers_per_device", 2)),
    ("queue", litserve(), {}, "processors are idle", Advice("workers_per_device", 2)),
    ("queue", litserve(workers_per_device=3), {}, "processors are idle", Advice("workers_per_device", 4)),
    ("queue", litserve(workers_per_device=4), {}, "batches hold 1", Advice("max_batch_size", 2)),
    ("queue", litserve(max_batch_size=12), {"on_cpu": False}, "batches hold 12", Advice("max_batch_size", 16)),
    ("queue", litserve(max_batch_size=16), {"on_cpu": False}, "wait 96% of the time for a worker", None),
    (
        "batch wait",
        litserve(max_batch_size=8, batch_timeout_s=0.02),
        {},
        "batches wait 96% of the time to fill",
        Advice("batch_timeout_s", 0.005),
    ),
    ("batch wait", litserve(max_batch_size=8), {}, "batches wait 96%", None),
    ("batch wait", litserve(max_batch_size=8, batch_timeout_s=0.001), {}, "batches wait 96%", None),
    ("HTTP and parsing in LitServe", litserve(), {}, "LitServe's HTTP server takes", Advice("api_server_count", 2)),
    ("return", litserve(workers_per_device=2), {}, "LitServe's HTTP server takes", Advice("api_server_count", 3)),
    ("return", litserve(api_server_count=4), {}, "LitServe's HTTP server takes", Advice("api_server_count", 5)),
    ("return", litserve(api_server_count=4), {"busy_share": 0.9}, "processors are all in use", None),
    ("predict", litserve(), {}, "processors are idle", Advice("workers_per_device", 2)),
    ("predict", litserve(workers_per_device=4, max_batch_size=16), {}, "the model itself: 96%", None),
    ("predict", litserve(), {"on_cpu": False}, "batches hold 1", Advice("max_batch_size", 2)),
    ("predict", litserve(), {"busy_share": 0.9}, "the model itself: 96%", Advice("workers_per_device", 2)),
    ("predict", litserve(), {"busy_share": None}, "the model itself: 96%", None),
    ("network, accept, client read", vllm(), {}, "the load generator and the network take 96%", None),
    ("client lateness", vllm(), {}, "the load generator and the network take 96%", None),
]


def verdict_on(row: str, model: VllmModel | LitServeModel, more: dict[str, Any]) -> Verdict:
    return judge(situation(model, {row: 0.96, "client lateness": 0.04} if row != "client lateness" else {}, **more))


@pytest.mark.parametrize(("row", "model", "more", "words", "advice"), CAUSES)
def test_a_row_that_takes_the_time_has_its_cause(
    row: str, model: VllmModel | LitServeModel, more: dict[str, Any], words: str, advice: Advice | None
) -> None:
    if row == "client lateness":
        words = words.replace("96%", "100%")
    found = verdict_on(row, model, more)
    assert found.row == row
    assert words in found.cause
    assert found.advice == advice


def test_every_cause_is_tested() -> None:
    assert {row for row, *_ in CAUSES} == set(verdict._CAUSES)


@pytest.mark.parametrize(("row", "model", "more", "words", "advice"), [case for case in CAUSES if case[4]])
def test_advice_is_a_setting_that_can_be_set_so(
    row: str, model: VllmModel | LitServeModel, more: dict[str, Any], words: str, advice: Advice
) -> None:
    given = model.model_dump(exclude_unset=True)
    section, _, name = advice.setting.rpartition(".")
    if isinstance(model, VllmModel):
        assert section == "args"
        assert option_name(name) == name
        spec = importlib.util.find_spec("vllm")
        assert spec is not None
        assert spec.origin is not None
        assert f'"--{name}"' in Path(spec.origin).with_name("engine").joinpath("arg_utils.py").read_text()
        changed = VllmModel.model_validate({**given, "args": {**model.args, name: advice.value}})
        assert changed.args[name] == advice.value
    else:
        assert section == ""
        assert name in LitServeModel.model_fields
        assert getattr(LitServeModel.model_validate({**given, name: advice.value}), name) == advice.value
    assert advice.value != given.get(name)


def test_every_cause_explains_a_row_that_there_is() -> None:
    record = RequestRecord(index=0, scheduled_s=0, sent_s=0, end_s=1)
    door = {"litport_request_duration_seconds_sum": 1.0}
    steps = ("http", "receive", "queue", "batch_wait", "decode", "predict", "encode")
    by_litserve = {f"litserve_step_seconds_total/{step}": 1.0 for step in steps}
    by_vllm = {"vllm:e2e_request_latency_seconds_sum": 1.0, "http_request_duration_seconds_sum": 1.0}
    rows = {row.name for series in (by_litserve, by_vllm) for row in break_down([record], series, door).rows}
    assert set(verdict._CAUSES) <= rows


def test_the_dominant_row_of_serving_is_told_beside_that_of_the_model() -> None:
    found = judge(situation(vllm(), {"decode": 0.7, "prefill": 0.12, "scheduler queue": 0.1, "front door": 0.03}))
    assert (found.row, found.serving_row) == ("decode", "scheduler queue")
    assert found.share == pytest.approx(0.7)
    assert found.serving_share == pytest.approx(0.1)


def test_the_cause_is_the_largest_rows_and_the_advice_that_of_the_largest_with_one() -> None:
    found = judge(situation(vllm(max_num_seqs=2), {"decode": 0.7, "scheduler queue": 0.2}))
    assert found.row == "decode"
    assert "the model itself: 70%" in found.cause
    assert found.reason is not None
    assert "requests wait 20% of the time" in found.reason
    assert found.advice == Advice("args.max-num-seqs", 16)


def test_a_small_row_is_not_worth_a_setting() -> None:
    found = judge(situation(vllm(max_num_seqs=2), {"decode": 0.95, "scheduler queue": 0.04}))
    assert found.cause.startswith("the model itself")
    assert found.advice is None


@pytest.mark.parametrize("row", ["front door", "hop to the model's process", "engine loop", "output-hop drift"])
def test_a_row_without_an_explanation_is_never_called_cheap(row: str) -> None:
    found = judge(situation(vllm(), {row: 0.97, "decode": 0.01}))
    assert found.row == row
    assert found.advice is None
    assert "97%" in found.cause
    assert "no single layer costs much" not in found.cause


def test_even_rows_are_no_cause() -> None:
    rows = {f"row {number}": 0.04 for number in range(25)}
    assert judge(situation(vllm(), {**rows, "client lateness": 0.0})).cause == "no single layer costs much"


@pytest.mark.parametrize("row", ["predict", "queue", "batch wait", "return", "HTTP and parsing in LitServe"])
def test_a_language_model_behind_plain_litserve_has_a_verdict_without_advice(row: str) -> None:
    found = judge(situation(vllm(), {row: 0.96}))
    assert (found.row, found.advice) == (row, None)
    assert "96%" in found.cause


def test_the_summary_says_what_is_reached_and_where_the_time_goes() -> None:
    rows = {"decode": 0.7}
    assert judge(situation(vllm(), rows)).summary == (
        "Litport reaches 0.88 of vllm-offline's throughput; 70% of the latency is decode"
    )
    assert judge(situation(vllm(), rows, ratio=None)).summary == "70% of the latency is decode"
