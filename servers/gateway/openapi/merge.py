"""One OpenAPI document of the whole platform, merged from the documents of the models' processes.

From it a client can be generated for all models at once, and the page at /docs shows it. It has the routes of the front
door and those of the models that are up. Each process (a "child" here) describes what its model takes and answers; the
front door adds which models share a route, its own errors, and the deadline. A child's schemas are named after its
model, since two children may mean different things by one name.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from servers.engines.base import Card
from servers.gateway.openapi import operations
from servers.gateway.openapi.schemas import Schemas, fix_form
from servers.gateway.routes.route import Route
from servers.models.model import Model

_TAGS = {
    "inference": "Routes that several models may share: the `model` in the body says which one is meant.",
    "predict": "One route for each LitServe model.",
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
_EVENTS = {"schema": {"type": "string", "description": "Server-sent events, when the request has `stream: true`"}}


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
        state = _State(needs_key, [model.name for model in models], [model.card for model in models])
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
    names = _OperationNames(operation["operationId"] for item in paths.values() for operation in item.values())
    children = _children(models, schemas)
    offers: dict[str, list[_Offer]] = {}
    for child in children:
        for path in child.card.routes & child.paths.keys():
            offers.setdefault(path, []).append(_Offer(child, child.paths[path]))
    by_path = {route.pattern: route for route in routes}
    with_example = [route.pattern for route in routes if route.example is not None]
    for path in sorted(offers, key=lambda path: (_position(path, with_example), path)):
        paths[path] = {"post": _shared_operation(path, by_path.get(path), offers[path], schemas, names)}
    for child in children:
        if operation := child.paths.get(child.card.predict_path or ""):
            for model in child.models:
                route = by_path.get(child.card.predict_path or "")
                paths[f"/predict/{model.name}"] = {"post": _predict_operation(model, route, operation, names)}
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


class _OperationNames:
    """The operation ids of the document; each is used once."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = set(names)

    def add(self, name: str) -> str:
        """The name, with a number behind it where it is in use already."""
        unique, number = name, 1
        while unique in self._names:
            number += 1
            unique = f"{name}_{number}"
        self._names.add(unique)
        return unique


@dataclass
class _Child:
    """Models whose processes document the same; `paths` has their POST operations, with schemas renamed."""

    card: Card
    models: list[Model] = field(default_factory=list)
    paths: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The values of a body's `model` that reach one of them, adapters included."""
        ids = [entry["id"] for model in self.models if model.card for entry in model.card.listing]
        return list(dict.fromkeys([model.name for model in self.models] + ids))


@dataclass(frozen=True)
class _Offer:
    child: _Child
    operation: dict[str, Any]


def _children(models: Iterable[Model], schemas: Schemas) -> list[_Child]:
    children: list[_Child] = []
    for model in models:
        card = model.card
        if card is None or not card.openapi:
            continue
        child = next((child for child in children if _documents_the_same(child.card, card)), None)
        if child is None:
            rename = schemas.adopt(model.name, card.openapi.get("components", {}).get("schemas", {}))
            posts = {path: item["post"] for path, item in card.openapi["paths"].items() if "post" in item}
            offers = {path: post for path, post in posts.items() if path in card.routes or path == card.predict_path}
            child = _Child(card, paths={path: fix_form(rename(post)) for path, post in offers.items()})
            children.append(child)
        child.models.append(model)
    return children


def _documents_the_same(card: Card, twin: Card) -> bool:
    return (card.routes, card.predict_path, card.openapi) == (twin.routes, twin.predict_path, twin.openapi)


def _position(path: str, paths: list[str]) -> int:
    return paths.index(path) if path in paths else len(paths)


def _shared_operation(
    path: str, route: Route | None, offers: list[_Offer], schemas: Schemas, operation_names: _OperationNames
) -> dict[str, Any]:
    """The operation of a route that goes by the body's `model`."""
    for offer in offers:
        for media in offer.operation.get("requestBody", {}).get("content", {}).values():
            schemas.name_models(media.get("schema", {}), offer.child.names)
    first = offers[0].operation
    names = [name for offer in offers for name in offer.child.names]
    operation_id = operation_names.add((route and route.operation_id) or _function_name(first, path))
    content = _join([offer.operation.get("requestBody", {}).get("content", {}) for offer in offers])
    example = _example(route, offers[0].child.card)
    if isinstance(example, Mapping) and "application/json" in content:
        content["application/json"]["example"] = {**example, "model": names[0]}
    answers = _join([content for offer in offers for content in _success_contents(offer.operation)])
    paragraphs = [f"Served by {', '.join(names)}.", first.get("description")]
    return {
        "operationId": operation_id,
        "summary": operation_id.replace("_", " ").capitalize(),
        "description": "\n\n".join(filter(None, paragraphs)),
        "tags": ["inference"],
        "parameters": _parameters(first),
        "requestBody": {"required": True, "content": content or _ANY_JSON},
        "responses": _responses(answers or _ANY_JSON),
    }


def _predict_operation(
    model: Model, route: Route | None, operation: Mapping[str, Any], operation_names: _OperationNames
) -> dict[str, Any]:
    """The operation of `/predict/<model>`; `route` is that of the same path in the model's process, if there is one."""
    assert model.card is not None
    name = re.sub(r"[^A-Za-z0-9]+", "_", model.name).strip("_")
    content = _join([operation.get("requestBody", {}).get("content") or _ANY_JSON])
    example = _example(route, model.card)
    if isinstance(example, Mapping) and model.card.predict_path in model.card.routes:
        example = {**example, "model": model.name}
    if example is not None and "application/json" in content:
        content["application/json"]["example"] = example
    return {
        "operationId": operation_names.add(f"predict_{name}"),
        "summary": f"Predict with {model.name}",
        "description": operation.get("description") or f"Whatever the API of {model.name} takes.",
        "tags": ["predict"],
        "parameters": _parameters(operation),
        "requestBody": {"required": True, "content": content},
        "responses": _responses(_join(list(_success_contents(operation))) or _ANY_JSON),
    }


def _example(route: Route | None, card: Card) -> Any:
    return card.example if route is None or route.example is None else route.example


_ANY_JSON: dict[str, Any] = {"application/json": {"schema": {}}}


def _join(contents: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Media types with their schemas; where children differ, any of their schemas."""
    by_type: dict[str, list[Any]] = {}
    for content in contents:
        for media_type, media in content.items():
            schemas = by_type.setdefault(media_type, [])
            if (schema := media.get("schema", {})) not in schemas:
                schemas.append(schema)
    return {media_type: {"schema": _any_of(schemas)} for media_type, schemas in by_type.items()}


def _any_of(schemas: list[Any]) -> Any:
    if len(schemas) == 1:
        return schemas[0]
    return {} if {} in schemas else {"anyOf": schemas}


def _success_contents(operation: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    return [
        response.get("content", {})
        for status, response in operation.get("responses", {}).items()
        if status.startswith("2")
    ]


def _parameters(operation: Mapping[str, Any]) -> list[Any]:
    return [*operation.get("parameters", []), {"$ref": "#/components/parameters/RequestTimeout"}]


def _responses(content: Mapping[str, Any]) -> dict[str, Any]:
    if "text/event-stream" in content:
        content = {**content, "text/event-stream": _EVENTS}
    return {"200": {"description": "The answer", "content": content}, **operations.failures()}


def _function_name(operation: Mapping[str, Any], path: str) -> str:
    """The name of the function behind the route: FastAPI adds path and method to it."""
    suffix = re.sub(r"\W", "_", path)
    return str(operation.get("operationId", "")).removesuffix(f"{suffix}_post") or f"post{suffix}"
