"""The routes that answer with a type of their own, as OpenAPI describes them: operations, and schemas from the types.

No schema is closed: a client that was generated from an older document goes on working when a field is added.
"""

from collections.abc import Iterable, Mapping
from inspect import cleandoc
from typing import Any

import msgspec

from clients.documents import Error
from servers.gateway.body.content import BodyKind
from servers.gateway.openapi.schemas import SCHEMAS_AT
from servers.gateway.routes.route import Route

# With a dot, so that no schema of a model has this name.
_PREFIX = f"{SCHEMAS_AT}litport."
_ERROR = {"$ref": f"{_PREFIX}Error"}


def describe(routes: Iterable[Route]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The path items of the routes that name their answer, and the component schemas of all answers."""
    routes = [route for route in routes if route.answer is not None]
    types = [Error, *(route.answer for route in routes)]
    (_, *answers), components = msgspec.json.schema_components(types, ref_template=f"{_PREFIX}{{name}}")
    paths: dict[str, Any] = {}
    for route, answer in zip(routes, answers, strict=True):
        methods = [method.lower() for method in route.methods if method != "HEAD"]
        paths.setdefault(route.template, {}).update({method: _operation(route, answer) for method in methods})
    return paths, {f"litport.{name}": _clean(schema) for name, schema in components.items()}


def failures() -> dict[str, Any]:
    """The responses that every route may give beside its success."""
    return {kind: _response(_ERROR, "Refused or failed") for kind in ("4XX", "5XX")}


def _clean(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema without its title, which is its name again, and without the indentation of the type's docstring."""
    fields = {key: value for key, value in schema.items() if key != "title"}
    return fields | {key: cleandoc(fields[key]) for key in ("description",) if key in fields}


def _operation(route: Route, answer: Mapping[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {"operationId": route.operation_id, "summary": route.summary, "tags": [route.protocol]}
    if route.parameters:
        operation["parameters"] = [_parameter(name) for name in route.parameters]
    if route.body is not BodyKind.UNREAD:
        media = {"schema": {}} if route.example is None else {"schema": {}, "example": route.example}
        operation["requestBody"] = {"content": {"application/json": media}}
    if not route.needs_key:
        operation["security"] = []
    outcomes = {str(status): _response(answer, text) for status, text in route.outcomes.items()}
    return {**operation, "responses": {**outcomes, **failures()}}


def _parameter(name: str) -> dict[str, Any]:
    description = f"The {name}'s name; a slash in it is sent as %2F"
    return {"name": name, "in": "path", "required": True, "description": description, "schema": {"type": "string"}}


def _response(schema: Mapping[str, Any], description: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}
