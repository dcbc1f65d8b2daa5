"""The verdict names the row that takes the time, why, and a setting that is really there."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from benchmarks import assessment
from benchmarks.analysis import verdict
from benchmarks.analysis.breakdown import Breakdown, Row, break_down
from benchmarks.analysis.layer import ClientLayer, FrontDoorLayer, Layer, Owner
from benchmarks.analysis.measurement import Measurement, RungResult
from benchmarks.analysis.verdict import Advice, Situation, Verdict
from benchmarks.environment import Machine
from benchmarks.rungs.harness import harness_of, row_readers
from benchmarks.rungs.litserve import LitServeLayer
from benchmarks.rungs.vllm import VllmLayer
from clients.record import RequestRecord
from configs.settings import LitServeModel, VllmModel
from configs.vllm import option_name


def vllm(**args: Any) -> VllmModel:
    return VllmModel(engine="vllm", source="m", args={name.replace("_", "-"): value for name, value in args.items()})


def litserve(**more: Any) -> LitServeModel:
    return LitServeModel(engine="litserve", api="embedding", **more)


def situation(model: VllmModel | LitServeModel, rows: dict[Layer, float], **more: Any) -> Situation:
    """Rows as shares of two seconds; what is missing to the whole is lateness."""
    shares = {ClientLayer.LATENESS: 1 - sum(rows.values()), **rows}
    time = Breakdown(tuple(Row(layer, 2 * share) for layer, share in shares.items()), 2.0, 0.0)
    given: dict[str, Any] = {
        "subject": "Litport",
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


def judge(on: Situation) -> Verdict:
    return verdict.judge(on, harness_of(on.model).causes)


# Layer, model, what else holds; words of the cause, advice.
CAUSES = [
    (
        VllmLayer.DECODE,
        vllm(),
        {},
        "the model itself: 96% of the time it generates, each step for all 16 requests",
        None,
    ),
    (LitServeLayer.DECODE, litserve(), {}, "decoding the requests takes 96%", None),
    (VllmLayer.PREFILL, vllm(), {}, "reading the prompts takes 96%", None),
    (
        VllmLayer.PREFILL,
        vllm(enable_prefix_caching=False),
        {},
        "prefix caching is off",
        Advice("args.enable-prefix-caching", True),
    ),
    (VllmLayer.HAND_OVER, vllm(), {}, "wait 96% of the time for the step that is running", None),
    (VllmLayer.QUEUE, vllm(max_num_seqs=4), {}, "takes 4 at a time, of 16", Advice("args.max-num-seqs", 16)),
    (VllmLayer.QUEUE, vllm(max_num_seqs=16), {}, "the KV cache is full", None),
    (VllmLayer.HTTP, vllm(), {}, "one for each token", Advice("args.stream-interval", 4)),
    (VllmLayer.HTTP, vllm(stream_interval=2), {}, "to write events", None),
    (LitServeLayer.QUEUE, litserve(workers_per_device=4), {"busy_share": 0.9}, "the model is the limit", None),
    (LitServeLayer.QUEUE, litserve(), {"busy_share": 0.9}, "threads of a worker wait", Advice("workers_per_device", 2)),
    (LitServeLayer.QUEUE, litserve(), {}, "processors are idle", Advice("workers_per_device", 2)),
    (LitServeLayer.QUEUE, litserve(workers_per_device=3), {}, "processors are idle", Advice("workers_per_device", 4)),
    (LitServeLayer.QUEUE, litserve(workers_per_device=4), {}, "batches hold 1", Advice("max_batch_size", 2)),
    (
        LitServeLayer.QUEUE,
        litserve(max_batch_size=12),
        {"on_cpu": False},
        "batches hold 12",
        Advice("max_batch_size", 16),
    ),
    (LitServeLayer.QUEUE, litserve(max_batch_size=16), {"on_cpu": False}, "wait 96% of the time for a worker", None),
    (
        LitServeLayer.BATCH_WAIT,
        litserve(max_batch_size=8, batch_timeout_s=0.02),
        {},
        "batches wait 96% of the time to fill",
        Advice("batch_timeout_s", 0.005),
    ),
    (LitServeLayer.BATCH_WAIT, litserve(max_batch_size=8), {}, "batches wait 96%", None),
    (LitServeLayer.BATCH_WAIT, litserve(max_batch_size=8, batch_timeout_s=0.001), {}, "batches wait 96%", None),
    (LitServeLayer.HTTP, litserve(), {}, "LitServe's HTTP server takes", None),
    (LitServeLayer.RECEIVE, litserve(), {}, "between the front door and the API", None),
    (LitServeLayer.RETURN, litserve(), {}, "between the front door and the API", None),
    (LitServeLayer.PREDICT, litserve(), {}, "processors are idle", Advice("workers_per_device", 2)),
    (LitServeLayer.PREDICT, litserve(workers_per_device=4, max_batch_size=16), {}, "the model itself: 96%", None),
    (LitServeLayer.PREDICT, litserve(), {"on_cpu": False}, "batches hold 1", Advice("max_batch_size", 2)),
    (LitServeLayer.PREDICT, litserve(), {"busy_share": 0.9}, "the model itself: 96%", Advice("workers_per_device", 2)),
    (LitServeLayer.PREDICT, litserve(), {"busy_share": None}, "the model itself: 96%", None),
    (ClientLayer.NETWORK, vllm(), {}, "the load generator and the network take 96%", None),
    (ClientLayer.LATENESS, vllm(), {}, "the load generator and the network take 96%", None),
]


def verdict_on(layer: Layer, model: VllmModel | LitServeModel, more: dict[str, Any]) -> Verdict:
    return judge(situation(model, {layer: 0.96} if layer is not ClientLayer.LATENESS else {}, **more))


@pytest.mark.parametrize(("layer", "model", "more", "words", "advice"), CAUSES)
def test_a_row_that_takes_the_time_has_its_cause(
    layer: Layer, model: VllmModel | LitServeModel, more: dict[str, Any], words: str, advice: Advice | None
) -> None:
    if layer is ClientLayer.LATENESS:
        words = words.replace("96%", "100%")
    found = verdict_on(layer, model, more)
    assert found.row == layer.label
    assert words in found.cause
    assert found.advice == advice


def causes() -> set[Layer]:
    engines = [harness_of(model).causes for model in (vllm(), litserve())]
    return {layer for known in (*engines, verdict._CLIENT_CAUSES) for layer in known}


def test_every_cause_is_tested() -> None:
    assert {layer for layer, *_ in CAUSES} == causes()


@pytest.mark.parametrize(("layer", "model", "more", "words", "advice"), [case for case in CAUSES if case[4]])
def test_advice_is_a_setting_that_can_be_set_so(
    layer: Layer, model: VllmModel | LitServeModel, more: dict[str, Any], words: str, advice: Advice
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
    by_host = {f"litserve_step_seconds_total/{step}": 1.0 for step in steps}
    by_litserve = {name: value for name, value in by_host.items() if not name.endswith("/queue")}
    by_vllm = {"vllm:e2e_request_latency_seconds_sum": 1.0, "http_request_duration_seconds_sum": 1.0}
    readers = row_readers()
    layers = {
        row.layer
        for series in (by_host, by_litserve, by_vllm)
        for row in break_down([record], series, door, readers).rows
    }
    assert causes() <= layers


def test_the_dominant_row_of_serving_is_told_beside_that_of_the_model() -> None:
    rows = {VllmLayer.DECODE: 0.7, VllmLayer.PREFILL: 0.12, VllmLayer.QUEUE: 0.1, FrontDoorLayer.FRONT_DOOR: 0.03}
    found = judge(situation(vllm(), rows))
    assert (found.row, found.serving_row) == ("decode", "scheduler queue")
    assert found.share == pytest.approx(0.7)
    assert found.serving_share == pytest.approx(0.1)


def test_the_cause_is_the_largest_rows_and_the_advice_that_of_the_largest_with_one() -> None:
    found = judge(situation(vllm(max_num_seqs=2), {VllmLayer.DECODE: 0.7, VllmLayer.QUEUE: 0.2}))
    assert found.row == "decode"
    assert "the model itself: 70%" in found.cause
    assert found.reason is not None
    assert "requests wait 20% of the time" in found.reason
    assert found.advice == Advice("args.max-num-seqs", 16)


def test_a_small_row_is_not_worth_a_setting() -> None:
    found = judge(situation(vllm(max_num_seqs=2), {VllmLayer.DECODE: 0.95, VllmLayer.QUEUE: 0.04}))
    assert found.cause.startswith("the model itself")
    assert found.advice is None


@pytest.mark.parametrize(
    "layer",
    [FrontDoorLayer.FRONT_DOOR, FrontDoorLayer.HOP, VllmLayer.LOOP, VllmLayer.OUTPUT],
    ids=lambda layer: layer.label,
)
def test_a_row_without_an_explanation_is_never_called_cheap(layer: Layer) -> None:
    found = judge(situation(vllm(), {layer: 0.97, VllmLayer.DECODE: 0.01}))
    assert found.row == layer.label
    assert found.advice is None
    assert "97%" in found.cause
    assert "no single layer costs much" not in found.cause


def test_even_rows_are_no_cause() -> None:
    members = {f"ROW_{number}": (f"even.{number}", f"row {number}", Owner.ENGINE) for number in range(25)}
    make_layers: Any = Layer
    rows: dict[Layer, float] = dict.fromkeys(make_layers("Even", members), 0.04)
    assert judge(situation(vllm(), {**rows, ClientLayer.LATENESS: 0.0})).cause == "no single layer costs much"


@pytest.mark.parametrize(
    "layer",
    [
        LitServeLayer.PREDICT,
        LitServeLayer.QUEUE,
        LitServeLayer.BATCH_WAIT,
        LitServeLayer.RETURN,
        LitServeLayer.RECEIVE,
        LitServeLayer.HTTP,
    ],
    ids=lambda layer: layer.label,
)
def test_a_language_model_behind_plain_litserve_has_a_verdict_without_advice(layer: Layer) -> None:
    found = judge(situation(vllm(), {layer: 0.96}))
    assert (found.row, found.advice) == (layer.label, None)
    assert "96%" in found.cause


def test_the_summary_says_what_is_reached_and_where_the_time_goes() -> None:
    rows: dict[Layer, float] = {VllmLayer.DECODE: 0.7}
    assert judge(situation(vllm(), rows)).summary == (
        "Litport reaches 0.88 of vllm-offline's throughput; 70% of the latency is decode"
    )
    assert judge(situation(vllm(), rows, ratio=None)).summary == "70% of the latency is decode"


@pytest.mark.parametrize(
    ("rungs", "subject"),
    [(["vllm", "litport"], "Litport"), (["litport", "vllm"], "Litport"), (["vllm"], "the rung vllm")],
)
def test_what_is_judged_is_litport_or_else_the_last_server_by_its_name(rungs: list[str], subject: str) -> None:
    model = vllm()
    record = RequestRecord(index=0, scheduled_s=0, sent_s=0, end_s=1)
    measurement = Measurement((record,), situation(model, {VllmLayer.DECODE: 0.7}).time)
    results = [RungResult("vllm-offline", 1, measurements=[measurement])]
    results += [RungResult(rung, 1, measurements=[measurement], read_as="events") for rung in rungs]
    found = assessment.judge(results, harness_of(model), model, Machine("Linux", None, 2, None, []))
    assert found is not None
    assert found.summary == f"{subject} reaches 1.00 of vllm-offline's throughput; 70% of the latency is decode"


def test_parsing_a_request_is_serving_and_generating_is_the_models_own_work() -> None:
    assert (LitServeLayer.DECODE.label, VllmLayer.DECODE.label) == ("decode", "decode")
    parsing = judge(situation(litserve(), {LitServeLayer.DECODE: 0.5, LitServeLayer.QUEUE: 0.2}))
    assert (parsing.row, parsing.serving_row) == ("decode", "decode")
    generating = judge(situation(vllm(), {VllmLayer.DECODE: 0.5, VllmLayer.QUEUE: 0.4}))
    assert (generating.row, generating.serving_row) == ("decode", "scheduler queue")


@pytest.mark.parametrize("case", [case for case in CAUSES if case[4]])
def test_a_label_may_change_and_the_advice_stays(monkeypatch: pytest.MonkeyPatch, case: tuple[Any, ...]) -> None:
    layer, model, more, words, advice = case
    monkeypatch.setattr(layer, "label", "renamed")
    found = verdict_on(layer, model, more)
    assert (found.row, found.advice) == ("renamed", advice)
    assert words in found.cause


def test_no_two_layers_share_a_key() -> None:
    layers = [layer for enum in Layer.__subclasses__() if enum.__module__.startswith("benchmarks") for layer in enum]
    assert len({layer.value for layer in layers}) == len(layers) == 25
