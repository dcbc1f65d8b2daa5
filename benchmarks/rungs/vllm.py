"""vLLM as the harness sees it: its rungs, its series as rows, and the causes of slowness with their settings.

The names of the series are those of vLLM 0.32, `/metrics`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.analysis.breakdown import Counters, Row
from benchmarks.analysis.layer import Layer, Owner
from benchmarks.analysis.verdict import Advice, Explanation, Situation
from benchmarks.load.request import COMPLETIONS, Endpoint
from benchmarks.rungs import litserve
from benchmarks.rungs.base import Rung
from benchmarks.rungs.context import RungContext
from benchmarks.rungs.harness import EngineHarness
from benchmarks.rungs.process import free_port
from configs.settings import LitServeModel, VllmModel
from servers.engines.vllm.engine import MIDDLEWARE_WORDS, VllmEngine


class VllmLayer(Layer):
    """The parts of a request in vLLM. `decode` is the generation of tokens."""

    LOOP = "vllm.loop", "engine loop", Owner.ENGINE
    HTTP = "vllm.http", "HTTP, JSON, SSE in vLLM", Owner.ENGINE
    HAND_OVER = "vllm.hand_over", "template, tokenise, hand-over", Owner.ENGINE
    QUEUE = "vllm.queue", "scheduler queue", Owner.ENGINE
    PREFILL = "vllm.prefill", "prefill", Owner.MODEL
    DECODE = "vllm.decode", "decode", Owner.MODEL
    OUTPUT = "vllm.output", "output-hop drift", Owner.ENGINE


def _make(context: RungContext, rung: str) -> Rung:
    model: VllmModel = context.model
    dtype = str(model.args.get("dtype", "auto"))
    users = context.settings.bench.load.users
    weights = {"model_dir": str(context.model_dir), "dtype": dtype}
    match rung:
        case "transformers" | "transformers-batched":
            layers = {"prefill": VllmLayer.PREFILL, "decode": VllmLayer.DECODE}
            return context.bare(rung, {**weights, "batch_size": 1 if rung == "transformers" else users}, layers)
        case "fastapi":
            return context.naive_server(rung, {**weights, "rung_of": "llm"}, Endpoint("causal_lm", "/generate"))
        case "litserve":
            batches = {"max_batch_size": users, "batch_timeout": 0.005} if users > 1 else {}
            init = {} if dtype == "auto" else {"dtype": dtype}
            spec = {"api": "causal_lm", "model_dir": str(context.model_dir), "init": init, **batches}
            settings = LitServeModel(engine="litserve", api="causal_lm")
            return litserve.plain_server(context, rung, spec, Endpoint("causal_lm", "/predict"), settings)
        case _:  # vllm-offline, vllm
            return _make_engine(context, rung, model)


def _make_engine(context: RungContext, rung: str, model: VllmModel) -> Rung:
    """vLLM itself, with the arguments that Litport would give it but its socket and Litport's middlewares."""
    command = VllmEngine(context.name, model).command(context.model_dir, Path("unused"))
    argv = list(command.argv)
    for first, count in (("--uds", 2), ("--middleware", len(MIDDLEWARE_WORDS))):
        at = argv.index(first)
        del argv[at : at + count]
    if rung == "vllm-offline":
        return context.bare(rung, {"argv": argv[argv.index("--model") :]}, {}, command.environ)
    port = free_port()
    argv += ["--host", "127.0.0.1", "--port", str(port)]
    return context.server(rung, argv, port, COMPLETIONS, command.environ)


def _rows(counters: Counters, inner_s: float, hop: Layer) -> list[Row] | None:
    if "vllm:e2e_request_latency_seconds_sum" not in counters:
        return None
    e2e_s = counters.histogram_mean_s("vllm:e2e_request_latency_seconds")
    ttft_s = counters.histogram_mean_s("vllm:time_to_first_token_seconds")
    queue_s = counters.histogram_mean_s("vllm:request_queue_time_seconds")
    prefill_s = counters.histogram_mean_s("vllm:request_prefill_time_seconds")
    decode_s = counters.histogram_mean_s("vllm:request_decode_time_seconds")
    rows = [Row(VllmLayer.LOOP, inner_s - e2e_s)]
    if "http_request_duration_seconds_sum" in counters:
        http_s = counters.histogram_mean_s("http_request_duration_seconds")
        rows = [Row(hop, inner_s - http_s), Row(VllmLayer.HTTP, http_s - e2e_s)]
    return [
        *rows,
        Row(VllmLayer.HAND_OVER, ttft_s - queue_s - prefill_s),
        Row(VllmLayer.QUEUE, queue_s),
        Row(VllmLayer.PREFILL, prefill_s),
        Row(VllmLayer.DECODE, decode_s),
        Row(VllmLayer.OUTPUT, (e2e_s - ttft_s) - decode_s),
    ]


def _explain_decode(situation: Situation, share: float) -> Explanation:
    return (
        f"the model itself: {share:.0%} of the time it generates, each step for all {situation.users} requests under "
        "way; fewer users make it shorter, a smaller or quantised model, or faster hardware",
        None,
    )


def _explain_prefill(situation: Situation, share: float) -> Explanation:
    cause = f"reading the prompts takes {share:.0%} of the time, while requests that generate wait for it"
    if _arguments(situation).get("enable-prefix-caching") is False:
        return f"{cause}; prefix caching is off", Advice("args.enable-prefix-caching", True)
    return f"{cause}; prompts that begin alike are read once if the prefix cache is on", None


def _explain_hand_over(situation: Situation, share: float) -> Explanation:
    del situation
    return (
        f"new requests wait {share:.0%} of the time for the step that is running, and for their tokens to come back; "
        "shorter steps (fewer tokens a step) make it shorter and throughput lower",
        None,
    )


def _explain_queue(situation: Situation, share: float) -> Explanation:
    most = _arguments(situation).get("max-num-seqs")
    cause = f"requests wait {share:.0%} of the time until the scheduler takes them"
    if isinstance(most, int) and most < situation.users:
        advice = Advice("args.max-num-seqs", situation.users)
        return f"{cause}: it takes {most} at a time, of {situation.users}", advice
    return f"{cause}: the KV cache is full, or too many tokens are asked for at a time", None


def _explain_http(situation: Situation, share: float) -> Explanation:
    cause = f"vLLM's HTTP server takes {share:.0%} of the time to write events"
    if "stream-interval" in _arguments(situation):
        return cause, None
    return f"{cause}: one for each token", Advice("args.stream-interval", 4)


def _arguments(situation: Situation) -> Mapping[str, Any]:
    model: VllmModel = situation.model
    return model.args


HARNESS = EngineHarness(
    rungs=VllmModel.rungs,
    make=_make,
    workload=lambda _: "tokens",
    endpoint=lambda _model, _name: COMPLETIONS,
    read_rows=_rows,
    causes={
        **litserve.CAUSES,
        VllmLayer.DECODE: _explain_decode,
        VllmLayer.PREFILL: _explain_prefill,
        VllmLayer.HAND_OVER: _explain_hand_over,
        VllmLayer.QUEUE: _explain_queue,
        VllmLayer.HTTP: _explain_http,
    },
    dtype=lambda model: str(model.args["dtype"]) if "dtype" in model.args else None,
)
