"""Routes that the front door answers itself: health, readiness, status, the list of models, and the documentation."""

from functools import partial
from urllib.parse import unquote

from clients import documents
from servers.gateway import home_page
from servers.gateway.directory import entries
from servers.gateway.exchange import Exchange
from servers.gateway.openapi import docs_page
from servers.gateway.routes.route import Route


async def _health(exchange: Exchange) -> None:
    await exchange.response.send_json(documents.Health(status="ok"))


async def _ready(exchange: Exchange) -> None:
    readiness = exchange.gateway.readiness()
    await exchange.response.send_json(readiness, 200 if readiness.ready else 503)


async def _status(exchange: Exchange) -> None:
    await exchange.response.send_json(exchange.gateway.status())


async def _list_models(exchange: Exchange) -> None:
    models = exchange.gateway.directory.models.values()
    listing = [entry for model in models for entry in entries(model)]
    # No ModelList: an entry of vLLM has more fields than the type.
    await exchange.response.send_json({"object": "list", "data": listing})


async def _retrieve_model(exchange: Exchange) -> None:
    # A name may come encoded here: the OpenAI SDK encodes the slash of `org/name`.
    name = unquote(exchange.parameters["model"])
    model = exchange.gateway.directory.find(name)
    await exchange.response.send_json(next(entry for entry in entries(model) if entry["id"] == name))


async def _openapi(exchange: Exchange) -> None:
    await exchange.response.send_body(200, exchange.gateway.openapi())


async def _docs(exchange: Exchange) -> None:
    await _send(exchange, docs_page.file(exchange.request.path, exchange.gateway.needs_key))


async def _home(exchange: Exchange) -> None:
    await _send(exchange, home_page.page(exchange.gateway.status(), exchange.gateway.needs_key))


async def _send(exchange: Exchange, file: docs_page.File) -> None:
    await exchange.response.start(200, file.headers())
    await exchange.response.finish(file.body)


_route = partial(Route, methods=("GET", "HEAD"), protocol="platform")

ROUTES = (
    _route(
        "/health",
        handler=_health,
        needs_key=False,
        is_recorded=False,
        operation_id="get_health",
        summary="Whether the front door is alive",
        answer=documents.Health,
    ),
    _route(
        "/ready",
        handler=_ready,
        needs_key=False,
        is_recorded=False,
        operation_id="get_ready",
        summary="Whether every required model is ready",
        answer=documents.Readiness,
        outcomes={200: "Every required model is ready", 503: "Not every required model is ready"},
    ),
    _route(
        "/status",
        handler=_status,
        operation_id="get_status",
        summary="What runs where",
        answer=documents.Status,
    ),
    _route(
        "/v1/models",
        handler=_list_models,
        operation_id="list_models",
        summary="Every model with its kind and state",
        answer=documents.ModelList,
    ),
    _route(
        "/v1/models/{model:path}",
        handler=_retrieve_model,
        operation_id="retrieve_model",
        summary="One model with its kind and state",
        answer=documents.ModelEntry,
    ),
    _route("/openapi.json", handler=_openapi),
    _route("/", handler=_home, needs_key=False),
    *(_route(path, handler=_docs, needs_key=False, label="/docs") for path in sorted(docs_page.PATHS)),
)
