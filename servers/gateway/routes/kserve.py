"""KServe's Open Inference Protocol, version 2, for models that declare tensors: for Triton's and KServe's clients.

The bodies of inference requests, JSON with or without binary tensors, are read by the model's worker; here only the
outline of the JSON is checked. Triton's extensions other than binary tensors are not offered.
"""

import re
from functools import partial
from urllib.parse import unquote

import msgspec

from clients import documents
from servers.engines.base import TENSOR_PATH
from servers.errors import ApiError
from servers.gateway.body import strict_json
from servers.gateway.body.content import BodyKind
from servers.gateway.directory import not_offered, ready_card
from servers.gateway.error_shapes import KSERVE
from servers.gateway.exchange import Exchange
from servers.gateway.routes.route import Route
from servers.models.model import Model

_VERSION = "1"
_LENGTH_HEADER = "inference-header-content-length"
_SIZE = re.compile("[0-9]{1,15}")


async def _live(exchange: Exchange) -> None:
    await exchange.response.send_json(documents.ServerLive(live=True))


async def _ready(exchange: Exchange) -> None:
    is_ready = exchange.gateway.readiness().ready
    await exchange.response.send_json(documents.ServerReady(ready=is_ready), 200 if is_ready else 503)


async def _describe_server(exchange: Exchange) -> None:
    version = exchange.gateway.version
    await exchange.response.send_json(
        documents.ServerMetadata(name="litport", version=version, extensions=["binary_tensor_data"])
    )


async def _model_ready(exchange: Exchange) -> None:
    model = _model(exchange)
    if model.card is not None and model.card.tensors is None:
        raise _not_offered(model)
    is_ready = model.takes_requests
    await exchange.response.send_json(documents.ModelReady(name=model.name, ready=is_ready), 200 if is_ready else 503)


async def _describe_model(exchange: Exchange) -> None:
    model = _model(exchange)
    tensors = ready_card(model).tensors
    if tensors is None:
        raise _not_offered(model)
    metadata = {"name": model.name, "versions": [_VERSION], "platform": f"litport_{model.engine.kind}", **tensors}
    await exchange.response.send_json(msgspec.convert(metadata, documents.ModelMetadata))


async def _infer(exchange: Exchange) -> None:
    model = _model(exchange)
    if ready_card(model).tensors is None:
        raise _not_offered(model)
    length = exchange.request.headers.get(_LENGTH_HEADER, "")
    # One that is no size is for the worker to refuse.
    text = exchange.body[: int(length)] if _SIZE.fullmatch(length) else exchange.body
    strict_json.check_outline(text, exchange.limits.max_json_depth)
    await exchange.gateway.dispatch(exchange, model, TENSOR_PATH)


async def _reject(exchange: Exchange) -> None:
    request = exchange.request
    message = f"{request.method} {request.path[:200]} is not served here; GET /v2 lists the extensions that are"
    raise ApiError(404, message, code="unknown_route")


def _model(exchange: Exchange) -> Model:
    """The model that the path names. Raises ApiError 404, also for a version other than the only one."""
    name = unquote(exchange.parameters["model"])
    version = exchange.parameters.get("version", _VERSION)
    if version != _VERSION:
        message = f"Request for unknown model: '{name[:128]}' version {version[:32]} is not found; there is version 1"
        raise ApiError(404, message, code="model_not_found", param="version")
    try:
        return exchange.gateway.directory.find(name)
    except ApiError as error:
        message = f"Request for unknown model: '{name[:128]}' is not found. {error.message}"
        raise ApiError(error.status, message, code=error.code, param=error.param) from None


def _not_offered(model: Model) -> ApiError:
    error = not_offered(model, "/v2")
    return ApiError(400, f"{error.message}; only models that declare tensors are served there", code=error.code)


_route = partial(Route, protocol="kserve", errors=KSERVE)
_get = partial(_route, methods=("GET",))
_post = partial(_route, methods=("POST",), handler=_infer, body=BodyKind.TENSORS, label="/v2/models/{model}/infer")
_MODEL = "/v2/models/{model:path}"

ROUTES = (
    _get(
        "/v2",
        handler=_describe_server,
        operation_id="get_v2_server",
        summary="The server and its protocol extensions",
        answer=documents.ServerMetadata,
    ),
    _get(
        "/v2/health/live",
        handler=_live,
        needs_key=False,
        is_recorded=False,
        operation_id="get_v2_live",
        summary="Whether the front door is alive",
        answer=documents.ServerLive,
    ),
    _get(
        "/v2/health/ready",
        handler=_ready,
        needs_key=False,
        is_recorded=False,
        operation_id="get_v2_ready",
        summary="Whether every required model is ready",
        answer=documents.ServerReady,
        outcomes={200: "Every required model is ready", 503: "Not every required model is ready"},
    ),
    _post(f"{_MODEL}/versions/{{version}}/infer"),
    _post(
        f"{_MODEL}/infer",
        operation_id="infer_v2",
        summary="Infer with tensors, in JSON or in binary form",
        answer=documents.Inference,
    ),
    _get(f"{_MODEL}/versions/{{version}}/ready", handler=_model_ready, label="/v2/models/{model}/ready"),
    _get(
        f"{_MODEL}/ready",
        handler=_model_ready,
        operation_id="get_v2_model_ready",
        summary="Whether the model is ready",
        answer=documents.ModelReady,
        outcomes={200: "It is ready", 503: "It is not ready"},
    ),
    _get(f"{_MODEL}/versions/{{version}}", handler=_describe_model, label="/v2/models/{model}"),
    _get(
        _MODEL,
        handler=_describe_model,
        operation_id="get_v2_model",
        summary="The tensors that the model takes and answers",
        answer=documents.ModelMetadata,
    ),
    _route("/v2/{path:path}", methods=("GET", "POST"), handler=_reject, label="other"),
)
