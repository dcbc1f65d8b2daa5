"""`/predict/{model}`: one route to each model that predicts, whatever its body is."""

from servers.gateway.body.content import BodyKind
from servers.gateway.directory import not_offered, ready_card
from servers.gateway.exchange import Exchange
from servers.gateway.routes.route import Route


async def _predict(exchange: Exchange) -> None:
    model = exchange.gateway.directory.find(exchange.parameters["model"])
    path = ready_card(model).predict_path
    if path is None:
        raise not_offered(model, "/predict")
    await exchange.gateway.dispatch(exchange, model, path)


ROUTES = (Route("/predict/{model:path}", ("POST",), "predict", _predict, body=BodyKind.ANY, label="/predict"),)
