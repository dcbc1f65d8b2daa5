"""One OpenAPI document of the whole platform, merged from what the children document of themselves.

Only routes that the front door lets through are in it. Each child's schemas are renamed after its model, since two
children may mean different things by one name. It describes nothing by itself beyond the few routes that the front
door answers.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from servers.model import Model

_SCHEMAS = "#/components/schemas/"
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
_TOLD = {
    "/health": "Whether the front door is alive",
    "/ready": "Whether every required model is ready",
    "/status": "What runs where",
    "/v1/models": "Every model with its kind and state",
}


def document(models: Iterable[Model], version: str) -> dict[str, Any]:
    """The document (OpenAPI 3.1); the models that are not up are not in it."""
    paths: dict[str, Any] = {path: {"get": _told(words)} for path, words in _TOLD.items()}
    schemas: dict[str, Any] = {"litport.Error": _ERROR}
    for model in models:
        if model.card is None or not model.card.openapi:
            continue
        prefix = re.sub(r"[^A-Za-z0-9._-]", "-", model.name)
        child = model.card.openapi
        for name, schema in child.get("components", {}).get("schemas", {}).items():
            schemas[f"{prefix}.{name}"] = _renamed(schema, prefix)
        for path, item in child["paths"].items():
            for outside in _outside(model, path):
                operations = {
                    method: _operation(operation, model, prefix)
                    for method, operation in item.items()
                    if method == "post"
                }
                paths.setdefault(outside, operations)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Litport", "version": version, "description": "Every model on one port."},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}, {}],
    }


def _outside(model: Model, path: str) -> list[str]:
    """The paths on the port that lead to this path of the model's process."""
    assert model.card is not None
    found = [path] if path in model.card.routes else []
    return [*found, f"/predict/{model.name}"] if path == model.card.predict_path else found


def _told(words: str) -> dict[str, Any]:
    return {"summary": words, "tags": ["litport"], "responses": {"200": {"description": "So it is"}, **_failures()}}


def _operation(operation: Mapping[str, Any], model: Model, prefix: str) -> dict[str, Any]:
    kept = {
        name: value
        for name, value in operation.items()
        if name in ("summary", "description", "requestBody", "parameters")
    }
    success = {
        status: response for status, response in operation.get("responses", {}).items() if status.startswith("2")
    }
    responses = {**(success or {"200": {"description": "The answer"}}), **_failures()}
    return _renamed({**kept, "tags": [model.name], "responses": responses}, prefix)  # type: ignore[no-any-return]


def _failures() -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": f"{_SCHEMAS}litport.Error"}}}
    return {kind: {"description": "Refused or failed", "content": content} for kind in ("4XX", "5XX")}


def _renamed(part: Any, prefix: str) -> Any:
    """The same, with every reference to a schema of the child's led to its new name."""
    if isinstance(part, Mapping):
        return {
            name: _reference(value, prefix) if name == "$ref" else _renamed(value, prefix)
            for name, value in part.items()
        }
    if isinstance(part, list):
        return [_renamed(item, prefix) for item in part]
    return part


def _reference(target: Any, prefix: str) -> Any:
    if not isinstance(target, str) or not target.startswith(_SCHEMAS) or target == f"{_SCHEMAS}litport.Error":
        return target
    return f"{_SCHEMAS}{prefix}.{target.removeprefix(_SCHEMAS)}"
