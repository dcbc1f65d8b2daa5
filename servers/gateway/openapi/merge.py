"""One OpenAPI document of the whole platform, merged from what the children document of themselves.

It exists so that a client can be generated for all models at once, and for the page at /docs. Only routes that the
front door lets through are in it, of the models that are up. Each child's schemas are renamed after its model, since
two children may mean different things by one name. It adds what only the front door knows (which models share a route,
its own errors, the deadline), and refuses to describe what a model takes or answers: that is the child's to say.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from servers.engines.base import Card
from servers.gateway.openapi import platform_paths as own_routes
from servers.gateway.openapi.examples import EXAMPLES
from servers.gateway.openapi.schemas import Schemas, cleaned
from servers.models.model import Model

_MadeOf = tuple[bool, list[tuple[str, Card | None]]]
_TAGS = {
    "inference": "Routes that several models may share: the `model` in the body says which one is meant.",
    "predict": "One route for each LitServe model.",
    own_routes.TAG: "What the front door itself answers.",
}
# The two engines call these differently, and a generated client's methods should not depend on which of them is up.
_NAMES = {"/v1/chat/completions": "create_chat_completion", "/v1/embeddings": "create_embedding"}
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

    def __init__(self, version: str) -> None:
        self._version = version
        self._made_of: _MadeOf | None = None
        self._body = b""

    def body(self, models: Iterable[Model], needs_key: bool) -> bytes:
        """The JSON text for these models as they are now."""
        models = list(models)
        cards = [(model.name, model.card) for model in models]
        if self._made_of is None or not _is_same(self._made_of, (needs_key, cards)):
            self._body = msgspec.json.encode(document(models, self._version, needs_key))
            self._made_of = (needs_key, cards)
        return self._body


def document(models: Iterable[Model], version: str, needs_key: bool = False) -> dict[str, Any]:
    """The document (OpenAPI 3.1); the models that are not up are not in it."""
    schemas = Schemas(own_routes.schemas())
    paths = own_routes.paths()
    taken = {operation["operationId"] for item in paths.values() for operation in item.values()}
    children = _children(models, schemas)
    offers: dict[str, list[_Offer]] = {}
    for child in children:
        for path in child.card.routes & child.paths.keys():
            offers.setdefault(path, []).append(_Offer(child, child.paths[path]))
    order = list(EXAMPLES)
    for path in sorted(offers, key=lambda path: (order.index(path) if path in order else len(order), path)):
        paths[path] = {"post": _shared(path, offers[path], schemas, taken)}
    for child in children:
        if operation := child.paths.get(child.card.predict_path or ""):
            for model in child.models:
                paths[f"/predict/{model.name}"] = {"post": _predict(model, operation, taken)}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Litport", "version": version, "description": "Every model on one port."},
        "tags": [{"name": name, "description": words} for name, words in _TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": schemas.reached_from(paths),
            "parameters": _PARAMETERS,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}] if needs_key else [{"key": []}, {}],
    }


@dataclass
class _Child:
    """Models whose processes document the same; `paths` has their POST operations, schemas renamed."""

    card: Card
    models: list[Model] = field(default_factory=list)
    paths: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """What a body's `model` may say to reach one of them, adapters included."""
        listed = [entry["id"] for model in self.models if model.card for entry in model.card.listing]
        return list(dict.fromkeys([model.name for model in self.models] + listed))


@dataclass(frozen=True)
class _Offer:
    child: _Child
    operation: dict[str, Any]


def _children(models: Iterable[Model], schemas: Schemas) -> list[_Child]:
    found: list[_Child] = []
    for model in models:
        card = model.card
        if card is None or not card.openapi:
            continue
        like = [child for child in found if _documents_the_same(child.card, card)]
        if not like:
            add = schemas.adopt(model.name, card.openapi.get("components", {}).get("schemas", {}))
            posts = {path: item["post"] for path, item in card.openapi["paths"].items() if "post" in item}
            wanted = {path for path in posts if path in card.routes or path == card.predict_path}
            like = [_Child(card, paths={path: cleaned(add(posts[path])) for path in posts if path in wanted})]
            found += like
        like[0].models.append(model)
    return found


def _documents_the_same(one: Card, other: Card) -> bool:
    return (one.routes, one.predict_path, one.openapi) == (other.routes, other.predict_path, other.openapi)


def _shared(path: str, offers: list[_Offer], schemas: Schemas, taken: set[str]) -> dict[str, Any]:
    """The operation of a route that goes by the body's `model`."""
    for offer in offers:
        for media in offer.operation.get("requestBody", {}).get("content", {}).values():
            schemas.name_models(media.get("schema", {}), offer.child.names)
    first = offers[0].operation
    names = [name for offer in offers for name in offer.child.names]
    operation_id = _unique(_NAMES.get(path) or _own_name(first, path), taken)
    content = _joined([offer.operation.get("requestBody", {}).get("content", {}) for offer in offers])
    example = EXAMPLES.get(path, offers[0].child.card.example)
    if isinstance(example, Mapping) and "application/json" in content:
        content["application/json"]["example"] = {**example, "model": names[0]}
    answers = _joined([content for offer in offers for content in _success_contents(offer.operation)])
    told = [f"Served by {', '.join(names)}.", first.get("description")]
    return {
        "operationId": operation_id,
        "summary": operation_id.replace("_", " ").capitalize(),
        "description": "\n\n".join(filter(None, told)),
        "tags": ["inference"],
        "parameters": _parameters(first),
        "requestBody": {"required": True, "content": content or _ANY_JSON},
        "responses": _responses(answers or _ANY_JSON),
    }


def _predict(model: Model, operation: Mapping[str, Any], taken: set[str]) -> dict[str, Any]:
    """The operation of `/predict/<model>`."""
    assert model.card is not None
    word = re.sub(r"[^A-Za-z0-9]+", "_", model.name).strip("_")
    content = _joined([operation.get("requestBody", {}).get("content") or _ANY_JSON])
    example = EXAMPLES.get(model.card.predict_path or "", model.card.example)
    if isinstance(example, Mapping) and model.card.predict_path in model.card.routes:
        example = {**example, "model": model.name}
    if example is not None and "application/json" in content:
        content["application/json"]["example"] = example
    return {
        "operationId": _unique(f"predict_{word}", taken),
        "summary": f"Predict with {model.name}",
        "description": operation.get("description") or f"Whatever the API of {model.name} takes.",
        "tags": ["predict"],
        "parameters": _parameters(operation),
        "requestBody": {"required": True, "content": content},
        "responses": _responses(_joined(list(_success_contents(operation))) or _ANY_JSON),
    }


_ANY_JSON: dict[str, Any] = {"application/json": {"schema": {}}}


def _joined(contents: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Media types with their schemas; where the children differ, any of theirs."""
    found: dict[str, list[Any]] = {}
    for content in contents:
        for media_type, media in content.items():
            seen = found.setdefault(media_type, [])
            if (schema := media.get("schema", {})) not in seen:
                seen.append(schema)
    return {
        media_type: {"schema": seen[0] if len(seen) == 1 else {} if {} in seen else {"anyOf": seen}}
        for media_type, seen in found.items()
    }


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
    return {"200": {"description": "The answer", "content": content}, **own_routes.failures()}


def _own_name(operation: Mapping[str, Any], path: str) -> str:
    """The name of the function behind the route: FastAPI adds path and method to it."""
    words = re.sub(r"\W", "_", path)
    return str(operation.get("operationId", "")).removesuffix(f"{words}_post") or f"post{words}"


def _unique(name: str, taken: set[str]) -> str:
    """The name, with a number where it is taken; it is taken from now on."""
    candidate, number = name, 1
    while candidate in taken:
        number += 1
        candidate = f"{name}_{number}"
    taken.add(candidate)
    return candidate


def _is_same(one: _MadeOf, other: _MadeOf) -> bool:
    # A card is never changed, only replaced; comparing their contents would cost as much as making the document.
    same = [(name, id(card)) for name, card in one[1]] == [(name, id(card)) for name, card in other[1]]
    return one[0] == other[0] and same
