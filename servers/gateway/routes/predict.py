"""`/predict/{model}`: one route to each model that predicts, whatever its body is."""

from collections.abc import Awaitable

from servers.gateway.body.content import BodyKind
from servers.gateway.directory import offering_card
from servers.gateway.exchange import Exchange
from servers.gateway.routes.route import Route
from servers.models.model import Model


def _predict(exchange: Exchange) -> Awaitable[None]:
    return _dispatch(exchange, exchange.gateway.directory.find(exchange.parameters["model"]))


def _predict_by_the_only_one(exchange: Exchange) -> Awaitable[None]:
    # The path that clients of LitServe know.
    return _dispatch(exchange, exchange.gateway.directory.predicting())


def _dispatch(exchange: Exchange, model: Model) -> Awaitable[None]:
    if not exchange.gateway.directory.has_stand_in(model, None):
        offering_card(model, None)
    return exchange.gateway.dispatch(exchange, model, None)


ROUTES = (
    Route("/predict/{model:path}", ("POST",), "predict", _predict, body=BodyKind.ANY, label="/predict"),
    Route("/predict", ("POST",), "predict", _predict_by_the_only_one, body=BodyKind.ANY),
)
