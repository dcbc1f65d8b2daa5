"""Fallback: another model answers in the place of the one that a request names."""

from servers.engines.model_field import name_model
from servers.gateway.exchange import Exchange
from servers.gateway.ledger import Ledger
from servers.gateway.review import review
from servers.models.model import Model

_SERVED_BY = b"x-litport-served-by"


def turn_to_fallback(exchange: Exchange, model: Model, path: str | None, ledger: Ledger) -> Model | None:
    """The model that may answer in the place of this one; the exchange becomes one with it.

    None where there is none. Raises ApiError for a body that its engine does not take.
    """
    names = (None, model.name, *model.settings.aliases)
    if exchange.content.model not in names and exchange.fallback_for is None:
        return None  # an adapter, which no other model has
    following = exchange.gateway.directory.fallback(model, path)
    if following is None:
        return None
    ledger.fall_back(exchange, model, following)
    exchange.fallback_for = exchange.fallback_for or model
    exchange.model = following
    exchange.response.notes = [(_SERVED_BY, following.name.encode())]
    if path is not None:
        exchange.body = name_model(exchange.body, exchange.request.content_type, following.name)
        review(exchange, following, path)
    return following
