"""One OpenAPI document of the whole platform, merged from the documents of the models' processes.

From it a client can be generated for all models at once, and the page at /docs shows it. It has the routes of the front
door and those of the models that are up. Each process (a "child" here) describes what its model takes and answers; the
front door adds which models share a route, its own errors, and the deadline. A child's schemas are named after its
model, since two children may mean different things by one name.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from servers.engines.base import Card
from servers.gateway.openapi import operations
from servers.gateway.openapi.model_operations import Child, Offer, OperationNames, predict_operation, shared_operation
from servers.gateway.openapi.schemas import Schemas, fix_form
from servers.gateway.routes.route import Route
from servers.models.model import Model

_TAGS = {
    "inference": "Routes that several models may share: the `model` in the body says which one is meant.",
    "predict": "One route for each LitServe model.",
    "kserve": "The Open Inference Protocol, for models that declare tensors; bodies may be binary in part.",
    "platform": "What the front door itself answers.",
}
_PARAMETERS = {
    "RequestTimeout": {
        "name": "X-Request-Timeout",
        "in": "header",
        "description": "Seconds within which the answer must be complete; a 504 comes when they are over.",
        "schema": {"type": "number", "exclusiveMinimum": 0},
    }
}


class Document:
    """The document as it is sent: made anew only when a model's card or the need for a key has changed."""

    def __init__(self, version: str, routes: Sequence[Route]) -> None:
        self._version = version
        self._routes = routes
        self._state: _State | None = None
        self._body = b""

    def body(self, models: Iterable[Model], needs_key: bool) -> bytes:
        """The JSON text for these models as they are now."""
        models = list(models)
        names = [name for model in models for name in (model.name, *model.settings.aliases)]
        state = _State(needs_key, names, [model.card for model in models])
        if self._state is None or not self._state.is_same(state):
            self._body = msgspec.json.encode(merge(models, self._version, self._routes, needs_key))
            self._state = state
        return self._body


@dataclass(frozen=True)
class _State:
    """What a document was made from."""

    needs_key: bool
    names: list[str]
    cards: list[Card | None]

    def is_same(self, state: "_State") -> bool:
        """Whether the same document would come of it."""
        # A card is replaced, never changed; comparing contents would cost as much as making the document.
        cards = zip(self.cards, state.cards, strict=False)
        is_same = (self.needs_key, self.names) == (state.needs_key, state.names)
        return is_same and all(card is now for card, now in cards)


def merge(models: Iterable[Model], version: str, routes: Sequence[Route], needs_key: bool = False) -> dict[str, Any]:
    """The document (OpenAPI 3.1) of these routes and of the models that are up."""
    paths, components = operations.describe(routes)
    schemas = Schemas(components)
    names = OperationNames(operation["operationId"] for item in paths.values() for operation in item.values())
    children = _children(models, schemas)
    offers: dict[str, list[Offer]] = {}
    for child in children:
        for path in child.card.routes & child.paths.keys():
            offers.setdefault(path, []).append(Offer(child, child.paths[path]))
    by_path = {route.pattern: route for route in routes}
    with_example = [route.pattern for route in routes if route.example is not None]
    for path in sorted(offers, key=lambda path: (_position(path, with_example), path)):
        paths[path] = {"post": shared_operation(path, by_path.get(path), offers[path], schemas, names)}
    for child in children:
        if operation := child.paths.get(child.card.predict_path or ""):
            for model in child.models:
                route = by_path.get(child.card.predict_path or "")
                paths[f"/predict/{model.name}"] = {"post": predict_operation(model, route, operation, names)}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Litport", "version": version, "description": "Every model on one port."},
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": schemas.reachable_from(paths),
            "parameters": _PARAMETERS,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}] if needs_key else [{"key": []}, {}],
    }


def _children(models: Iterable[Model], schemas: Schemas) -> list[Child]:
    children: list[Child] = []
    for model in models:
        card = model.card
        if card is None or not card.openapi:
            continue
        child = next((child for child in children if _documents_the_same(child.card, card)), None)
        if child is None:
            rename = schemas.adopt(model.name, card.openapi.get("components", {}).get("schemas", {}))
            posts = {path: item["post"] for path, item in card.openapi["paths"].items() if "post" in item}
            offers = {path: post for path, post in posts.items() if path in card.routes or path == card.predict_path}
            child = Child(card, paths={path: fix_form(rename(post)) for path, post in offers.items()})
            children.append(child)
        child.models.append(model)
    return children


def _documents_the_same(card: Card, twin: Card) -> bool:
    return (card.routes, card.predict_path, card.openapi) == (twin.routes, twin.predict_path, twin.openapi)


def _position(path: str, paths: list[str]) -> int:
    return paths.index(path) if path in paths else len(paths)
