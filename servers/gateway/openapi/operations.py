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
REQUEST_TIMEOUT = {"$ref": "#/components/parameters/RequestTimeout"}
_ERROR = {"$ref": f"{_PREFIX}Error"}


def describe(routes: Iterable[Route]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The path items of the routes that name their answer, and the component schemas of all answers."""
    routes = [route for route in routes if route.answer is not None]
    types = [Error, *(route.answer for route in routes), *(route.errors.document for route in routes)]
    (_, *schemas), components = msgspec.json.schema_components(types, ref_template=f"{_PREFIX}{{name}}")
    answers, errors = schemas[: len(routes)], schemas[len(routes) :]
    paths: dict[str, Any] = {}
    for route, answer, error in zip(routes, answers, errors, strict=True):
        methods = [method.lower() for method in route.methods if method != "HEAD"]
        paths.setdefault(route.template, {}).update({method: _operation(route, answer, error) for method in methods})
    return paths, {f"litport.{name}": _clean(schema) for name, schema in components.items()}


def failures(error: Mapping[str, Any] = _ERROR) -> dict[str, Any]:
    """The responses that every route may give beside its success, with the schema of the error."""
    return {kind: _response(error, "Refused or failed") for kind in ("4XX", "5XX")}


def _clean(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema without its title, which is its name again, and without the indentation of the type's docstring."""
    fields = {key: value for key, value in schema.items() if key != "title"}
    return fields | {key: cleandoc(fields[key]) for key in ("description",) if key in fields}


def _operation(route: Route, answer: Mapping[str, Any], error: Mapping[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {"operationId": route.operation_id, "summary": route.summary, "tags": [route.protocol]}
    parameters = [_parameter(name) for name in route.parameters]
    if route.body is not BodyKind.UNREAD:
        parameters.append(REQUEST_TIMEOUT)
        media = {"schema": {}} if route.example is None else {"schema": {}, "example": route.example}
        operation["requestBody"] = {"content": {"application/json": media}}
    if parameters:
        operation["parameters"] = parameters
    if not route.needs_key:
        operation["security"] = []
    outcomes = {str(status): _response(answer, text) for status, text in route.outcomes.items()}
    return {**operation, "responses": {**outcomes, **failures(error)}}


def _parameter(name: str) -> dict[str, Any]:
    description = f"The {name}'s name; a slash in it is sent as %2F"
    return {"name": name, "in": "path", "required": True, "description": description, "schema": {"type": "string"}}


def _response(schema: Mapping[str, Any], description: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}
