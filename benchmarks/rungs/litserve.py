"""A LitAPI as the harness sees it: its rungs, its steps as rows, and the causes of slowness with their settings.

The worker host counts the steps, and for plain LitServe the rung does; LitServe's own server behind Litport has no
rows. Of a batch every request counts the whole time, since that is what it waits for.
"""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from benchmarks.analysis.breakdown import Counters, Row
from benchmarks.analysis.layer import Layer, Owner
from benchmarks.analysis.verdict import Advice, Cause, Explanation, Situation
from benchmarks.load.request import EMBEDDINGS, Endpoint
from benchmarks.rungs.base import Rung
from benchmarks.rungs.context import RungContext
from benchmarks.rungs.harness import EngineHarness
from benchmarks.rungs.process import free_port
from benchmarks.rungs.server.rung import ServerRung
from configs.bench import VARIANT_RUNG
from configs.errors import UserError
from configs.paths import absolute
from configs.settings import LitServeModel
from servers.apis.exports import exports_dir
from servers.cluster.application import gpus_of
from servers.cluster.deployment import DEPLOYMENT
from servers.engines.litserve.engine import LitServeEngine, api_spec, variant_of

# This share of the processors in use leaves none for more workers.
_BUSY = 0.85


class LitServeLayer(Layer):
    """The steps of a request to a LitAPI. `decode` turns its body into inputs, so it is a cost of serving."""

    HTTP = "litserve.http", "HTTP and parsing in LitServe", Owner.ENGINE
    RECEIVE = "litserve.receive", "hand-over and parsing", Owner.ENGINE
    QUEUE = "litserve.queue", "queue", Owner.ENGINE
    BATCH_WAIT = "litserve.batch_wait", "batch wait", Owner.ENGINE
    DECODE = "litserve.decode", "decode", Owner.ENGINE
    PREDICT = "litserve.predict", "predict", Owner.MODEL
    ENCODE = "litserve.encode", "encode", Owner.MODEL
    RETURN = "litserve.return", "return", Owner.ENGINE
    QUEUE_AND_RETURN = "litserve.queue_and_return", "queue, batch wait and return", Owner.ENGINE


_STEPS = {
    "receive": LitServeLayer.RECEIVE,
    "queue": LitServeLayer.QUEUE,
    "batch_wait": LitServeLayer.BATCH_WAIT,
    "decode": LitServeLayer.DECODE,
    "predict": LitServeLayer.PREDICT,
    "encode": LitServeLayer.ENCODE,
}
_PREDICT = "/predict"
_APIS = {"embedding": EMBEDDINGS, "image_classification": Endpoint("image", _PREDICT)}
_WORKLOADS = {"embedding": "tokens", "image_classification": "images"}


def plain_server(
    context: RungContext, rung: str, spec: Mapping[str, Any], endpoint: Endpoint, settings: LitServeModel
) -> ServerRung:
    """LitServe without Litport around it, with the threads and the allocator that Litport gives its child."""
    port = free_port()
    metrics = context.folder / f"{rung}-metrics-{port}"
    metrics.mkdir(parents=True)
    child = {"name": context.name, "uds": "", "card": "", "log_level": "warning", **spec}
    environ = LitServeEngine(context.name, settings, metrics / "unused", "warning").environ()
    return context.server(
        rung,
        context.spec_argv("benchmarks.rungs.server.litserve", rung, child, port),
        port,
        endpoint,
        {**environ, "PROMETHEUS_MULTIPROC_DIR": str(metrics), **settings.env},
    )


def _make(context: RungContext, rung: str) -> Rung:
    model: LitServeModel = context.model
    endpoint = _endpoint(model, context.name, _PREDICT)
    arguments = {**model.init, **({"model_dir": str(context.model_dir)} if context.model_dir else {})}
    spec: dict[str, Any] = {"api": model.api, "arguments": arguments, "device": _device(model)}
    exports = exports_dir(context.settings.server.cache_dir, context.name)
    match rung:
        case "fastapi":
            naive = {**spec, "rung_of": "api", "form": endpoint.form}
            return context.naive_server(rung, naive, Endpoint(endpoint.form, _PREDICT))
        case "litserve":
            return plain_server(context, rung, api_spec(model, context.model_dir, exports), endpoint, model)
        case _:  # model, model-batched, model[RUNTIME]
            if match := VARIANT_RUNG.fullmatch(rung):
                variant = replace(
                    variant_of(model, exports),
                    runtime=match[1],
                    precision=match[2] or "float32",
                    falls_back=False,
                    options=model.runtime_options if match[1] == model.runtime else {},
                )
                spec["variant"] = asdict(variant)
            layers = {"decode": LitServeLayer.DECODE, "predict": LitServeLayer.PREDICT, "encode": LitServeLayer.ENCODE}
            size = context.settings.bench.max_batch_size
            return context.bare(rung, {**spec, "batch_size": size}, layers)


def _ingress(context: RungContext, rung: str, replicas: int | None) -> Rung:
    """The LitAPI as an application of Ray Serve, a replica of Ray's for each worker. Raises UserError for a stream."""
    model: LitServeModel = context.model
    if model.stream:
        raise UserError(f"bench.rungs: {rung} measures no streams")
    workers = model.workers_per_device or 1
    form = _endpoint(model, context.name, _PREDICT).form
    environ = LitServeEngine(context.name, model, context.folder / "unused", "warning").environ()
    spec = {
        "api": model.api,
        "arguments": dict(model.init),
        "source": model.source,
        "cache_dir": str(context.settings.server.cache_dir),
        "device": _device(model),
        "batch_size": model.max_batch_size or 1,
        "wait_s": model.batch_timeout_s or 0,
        "variant": asdict(variant_of(model, None)),
        "form": form,
    }
    options = {
        "num_cpus": model.resources.cpus / workers,
        "num_gpus": gpus_of(model) / workers,
        "runtime_env": {"env_vars": {**environ, **model.env}},
    }
    deployment = {
        "name": DEPLOYMENT,
        "num_replicas": workers * (replicas or model.replica_count),
        "max_ongoing_requests": max(64, 2 * (model.max_batch_size or 1)),
        "ray_actor_options": options,
    }
    application = {
        "name": "litport-bench-ingress",
        "route_prefix": "/",
        "import_path": "benchmarks.rungs.server.ray_serve:build",
        "args": {"name": context.name, "deployment": DEPLOYMENT, "spec": absolute(spec)},
        "deployments": [deployment],
    }
    return context.ingress(rung, Endpoint(form, _PREDICT), application)


def _endpoint(model: LitServeModel, name: str, path: str = "") -> Endpoint:
    """Where the API takes requests: by LitServe's spec of embeddings, or at the `path` of a prediction."""
    endpoint = _APIS.get(model.api, Endpoint("json", _PREDICT))
    if endpoint.path == _PREDICT:
        endpoint = Endpoint(endpoint.form, path or f"/predict/{name}")
    return Endpoint(endpoint.form, endpoint.path, "lines" if model.stream else "whole")


def _device(model: LitServeModel) -> str:
    import torch

    if model.accelerator in (None, "auto"):
        return "cuda" if torch.cuda.is_available() else "cpu"
    return model.accelerator


def _rows(counters: Counters, inner_s: float, hop: Layer) -> list[Row] | None:
    if "litserve_step_seconds_total/http" not in counters:
        return None

    def mean_s(step: str) -> float:
        return counters.mean_s(f"litserve_step_seconds_total/{step}", f"litserve_step_requests_total/{step}")

    http_s = mean_s("http")
    # Plain LitServe does not tell when a request leaves its queue.
    is_plain = "litserve_step_seconds_total/queue" not in counters
    layers = {**_STEPS, "receive": LitServeLayer.HTTP} if is_plain else _STEPS
    rows = [
        Row(layer, mean_s(step)) for step, layer in layers.items() if f"litserve_step_seconds_total/{step}" in counters
    ]
    remainder = LitServeLayer.QUEUE_AND_RETURN if is_plain else LitServeLayer.RETURN
    return [Row(hop, inner_s - http_s), *rows, Row(remainder, http_s - sum(row.seconds for row in rows))]


def _explain_decode(situation: Situation, share: float) -> Explanation:
    del situation
    return f"decoding the requests takes {share:.0%} of the time", None


def _explain_queue(situation: Situation, share: float) -> Explanation:
    return _explain_workers(situation, f"requests wait {share:.0%} of the time for a worker")


def _explain_batch_wait(situation: Situation, share: float) -> Explanation:
    model = _settings(situation)
    wait_s = model.batch_timeout_s if model else None
    cause = f"batches wait {share:.0%} of the time to fill"
    return cause, Advice("batch_timeout_s", wait_s / 4) if wait_s and wait_s > 0.001 else None


def _explain_http(situation: Situation, share: float) -> Explanation:
    del situation
    return f"LitServe's HTTP server takes {share:.0%} of the time", None


def _explain_hand_over(situation: Situation, share: float) -> Explanation:
    del situation
    return f"the way between the front door and the API, with parsing and encoding, takes {share:.0%} of the time", None


def _explain_predict(situation: Situation, share: float) -> Explanation:
    cause = f"the model itself: {share:.0%} of the time a request is in a batch that is predicted"
    return _explain_workers(situation, cause)


def _explain_workers(situation: Situation, cause: str) -> Explanation:
    """Work that waits for workers needs more of them, or larger batches, where the processors have room for it."""
    model = _settings(situation)
    if model is None or situation.busy_share is None:
        return cause, None
    busy = situation.busy_share >= _BUSY
    workers = model.workers_per_device or 1
    if workers < situation.cores and situation.on_cpu:
        reason = "the threads of a worker wait for each other" if busy else "processors are idle"
        return f"{cause}, and {reason}", Advice("workers_per_device", min(situation.cores, workers * 2))
    if busy:
        return f"{cause}, and the processors are all in use: the model is the limit", None
    batch = model.max_batch_size or 1
    most = min(situation.users, situation.best_batch or situation.users)
    if batch < most:
        return f"{cause}; batches hold {batch}", Advice("max_batch_size", min(most, 2 * batch))
    return cause, None


def _settings(situation: Situation) -> LitServeModel | None:
    """The model's settings; None for a language model behind plain LitServe, which Litport would not serve so."""
    return situation.model if isinstance(situation.model, LitServeModel) else None


CAUSES: Mapping[Layer, Cause] = {
    LitServeLayer.QUEUE: _explain_queue,
    LitServeLayer.BATCH_WAIT: _explain_batch_wait,
    LitServeLayer.HTTP: _explain_http,
    LitServeLayer.RECEIVE: _explain_hand_over,
    LitServeLayer.RETURN: _explain_hand_over,
    LitServeLayer.DECODE: _explain_decode,
    LitServeLayer.PREDICT: _explain_predict,
}
HARNESS = EngineHarness(
    rungs=LitServeModel.rungs,
    make=_make,
    ingress=_ingress,
    workload=lambda model: _WORKLOADS.get(model.api, "example"),
    endpoint=_endpoint,
    read_rows=_rows,
    causes=CAUSES,
    on_cpu=lambda model: bool(model.accelerator == "cpu"),
)
