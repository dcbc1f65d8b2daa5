"""The review of a request's body by the rules of the engine that is to answer it."""

from dataclasses import replace

from servers.gateway.exchange import Exchange
from servers.models.model import Model


def review(exchange: Exchange, model: Model, path: str | None) -> None:
    """Let the engine's rules refuse the body, or note what the engine ignores of it.

    The parsed body is not kept, unless it may go to another model, whose engine has other rules.
    """
    card, content = model.card, exchange.content
    if content.document is None or path is None:
        return
    if card is not None and card.rules is not None:
        refuse_unknown = exchange.limits.unknown_fields == "refuse"
        notes = card.rules.review(path, content.document, refuse_unknown=refuse_unknown)
        exchange.response.notes += [(name.encode(), value.encode()) for name, value in notes.items()]
    if model.settings.fallback is None:
        exchange.content = replace(content, document=None)
