"""The operations of models, from the documents of their processes: routes that models share, and `/predict/<model>`."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from servers.engines.base import Card
from servers.gateway.openapi import operations
from servers.gateway.openapi.schemas import Schemas
from servers.gateway.routes.route import Route
from servers.models.model import Model

_EVENTS = {"schema": {"type": "string", "description": "Server-sent events, when the request has `stream: true`"}}
_ANY_JSON: dict[str, Any] = {"application/json": {"schema": {}}}


class OperationNames:
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
class Child:
    """Models whose processes document the same; `paths` has their POST operations, with schemas renamed."""

    card: Card
    models: list[Model] = field(default_factory=list)
    paths: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The values of a body's `model` that reach one of them, adapters included."""
        aliases = [alias for model in self.models for alias in model.settings.aliases]
        ids = [entry["id"] for model in self.models if model.card for entry in model.card.listing]
        return list(dict.fromkeys([model.name for model in self.models] + ids + aliases))


@dataclass(frozen=True)
class Offer:
    """A child's own description of a path that several models may share."""

    child: Child
    operation: dict[str, Any]


def shared_operation(
    path: str, route: Route | None, offers: list[Offer], schemas: Schemas, operation_names: OperationNames
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


def predict_operation(
    model: Model, route: Route | None, operation: Mapping[str, Any], operation_names: OperationNames
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
    return [*operation.get("parameters", []), operations.REQUEST_TIMEOUT]


def _responses(content: Mapping[str, Any]) -> dict[str, Any]:
    if "text/event-stream" in content:
        content = {**content, "text/event-stream": _EVENTS}
    return {"200": {"description": "The answer", "content": content}, **operations.failures()}


def _function_name(operation: Mapping[str, Any], path: str) -> str:
    """The name of the function behind the route: FastAPI adds path and method to it."""
    suffix = re.sub(r"\W", "_", path)
    return str(operation.get("operationId", "")).removesuffix(f"{suffix}_post") or f"post{suffix}"
