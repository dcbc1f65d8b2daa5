"""The routes that the front door answers itself, as OpenAPI describes them: paths, and the schemas of what is answered.

They are written by hand because there is no other description of them; a test holds every real answer against them.
Fields that are not always there are not required, and none is closed: clients that were made from an older document go
on working when a field is added.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from servers.gateway.openapi.schemas import SCHEMAS_AT

TAG = "platform"

_STRING = {"type": "string"}
_INTEGER = {"type": "integer"}
_NUMBER = {"type": "number"}
_BOOLEAN = {"type": "boolean"}
_TEXT_OR_NULL = {"type": ["string", "null"]}
_INTEGER_OR_NULL = {"type": ["integer", "null"]}
_NUMBER_OR_NULL = {"type": ["number", "null"]}
_STATE = {"type": "string", "enum": ["pulling", "starting", "ready", "draining", "stopped", "failed"]}


def failures() -> dict[str, Any]:
    """The responses that every route may give beside its success."""
    content = {"application/json": {"schema": {"$ref": f"{SCHEMAS_AT}litport.Error"}}}
    return {kind: {"description": "Refused or failed", "content": content} for kind in ("4XX", "5XX")}


def paths() -> dict[str, Any]:
    """The path items."""
    readiness = _answer("Readiness", "Every required model is ready")
    name = {
        "name": "model",
        "in": "path",
        "required": True,
        "description": "The model's name; a slash in it is sent as %2F",
        "schema": _STRING,
    }
    return {
        "/health": _get("get_health", "Whether the front door is alive", {"200": _answer("Health")}, is_open=True),
        "/ready": _get(
            "get_ready",
            "Whether every required model is ready",
            {"200": readiness, "503": {**readiness, "description": "Not every required model is ready"}},
            is_open=True,
        ),
        "/status": _get("get_status", "What runs where", {"200": _answer("Status")}),
        "/v1/models": _get("list_models", "Every model with its kind and state", {"200": _answer("ModelList")}),
        "/v1/models/{model}": _get(
            "retrieve_model", "One model with its kind and state", {"200": _answer("ModelEntry")}, [name]
        ),
    }


def schemas() -> dict[str, Any]:
    """The component schemas, by their names within `components`."""
    return {f"litport.{name}": schema for name, schema in _SCHEMAS.items()}


def _get(
    operation_id: str,
    summary: str,
    responses: Mapping[str, Any],
    parameters: Iterable[Mapping[str, Any]] = (),
    *,
    is_open: bool = False,
) -> dict[str, Any]:
    operation: dict[str, Any] = {"operationId": operation_id, "summary": summary, "tags": [TAG]}
    if parameters:
        operation["parameters"] = list(parameters)
    if is_open:
        operation["security"] = []
    return {"get": {**operation, "responses": {**responses, **failures()}}}


def _answer(schema: str, description: str = "The answer") -> dict[str, Any]:
    return {
        "description": description,
        "content": {"application/json": {"schema": {"$ref": f"{SCHEMAS_AT}litport.{schema}"}}},
    }


def _object(required: Mapping[str, Any], optional: Mapping[str, Any] | None = None, **words: str) -> dict[str, Any]:
    return {"type": "object", **words, "required": list(required), "properties": {**required, **(optional or {})}}


def _list(items: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _named(schema: str) -> dict[str, Any]:
    return {"$ref": f"{SCHEMAS_AT}litport.{schema}"}


def _or_null(schema: str) -> dict[str, Any]:
    return {"anyOf": [_named(schema), {"type": "null"}]}


_SCHEMAS = {
    # vLLM's own errors have a number as `code`, those of Anthropic's routes no `param` and no `code`.
    "Error": _object({"error": _named("ErrorDetail")}),
    "ErrorDetail": _object(
        {"message": _STRING, "type": _STRING},
        {"param": _TEXT_OR_NULL, "code": {"anyOf": [_STRING, _INTEGER, {"type": "null"}]}},
    ),
    "Health": _object({"status": {"type": "string", "const": "ok"}}),
    "Readiness": _object(
        {"ready": _BOOLEAN, "models": {"type": "object", "additionalProperties": _STATE}},
        description="Whether every required model takes traffic, and the state of each model by its name",
    ),
    "ModelList": _object(
        {"object": {"type": "string", "const": "list"}, "data": _list(_named("ModelEntry"))},
    ),
    "ModelEntry": _object(
        {"id": _STRING, "object": _STRING, "created": _INTEGER, "owned_by": _STRING, "kind": _STRING, "state": _STATE},
        description="As OpenAI has it, with the engine (`kind`) and the state; an adapter of vLLM's has an entry too",
    ),
    "Status": _object(
        {
            "version": _STRING,
            "address": _STRING,
            "uptime_s": _NUMBER,
            "in_flight": _INTEGER,
            "models": _list(_named("ModelStatus")),
        },
        {"metrics_address": _TEXT_OR_NULL, "hardware": _or_null("Hardware")},
    ),
    "ModelStatus": _object(
        {
            "name": _STRING,
            "kind": _STRING,
            "source": _TEXT_OR_NULL,
            "state": _STATE,
            "detail": _STRING,
            "in_state_s": _NUMBER,
            "phases_s": {"type": "object", "additionalProperties": _NUMBER},
            "restarts": _INTEGER,
            "required": _BOOLEAN,
            "running": _INTEGER,
            "waiting": _INTEGER,
            "process_count": _INTEGER_OR_NULL,
            "memory_bytes": _INTEGER_OR_NULL,
            "paths": _list(_STRING),
        },
        {
            "socket": _STRING,
            "log_file": _STRING,
            "group_id": _INTEGER_OR_NULL,
            "cpu_cores": _NUMBER_OR_NULL,
            "recent": _named("Recent"),
        },
    ),
    "Recent": _object(
        {
            "window_s": _NUMBER,
            "requests": _INTEGER,
            "failed": _INTEGER,
            "requests_per_s": _NUMBER,
            "input_tokens_per_s": _NUMBER,
            "output_tokens_per_s": _NUMBER,
            "duration_s": _or_null("Percentiles"),
            "ttft_s": _or_null("Percentiles"),
        },
        description="Of the requests that ended within the last `window_s` seconds",
    ),
    "Percentiles": _object({"p50": _NUMBER, "p95": _NUMBER}),
    "Hardware": _object(
        {
            "cpu_percent": _NUMBER_OR_NULL,
            "memory_available_bytes": _INTEGER,
            "memory_total_bytes": _INTEGER,
            "gpus": _list(_named("Gpu")),
            "nvml_error": _TEXT_OR_NULL,
        },
    ),
    "Gpu": _object(
        {"index": _INTEGER},
        {
            "name": _TEXT_OR_NULL,
            "utilization_percent": _NUMBER_OR_NULL,
            "memory_used_bytes": _INTEGER_OR_NULL,
            "memory_total_bytes": _INTEGER_OR_NULL,
            "power_w": _NUMBER_OR_NULL,
            "shared": {"type": ["boolean", "null"]},
            "model": _TEXT_OR_NULL,
            "lost": _BOOLEAN,
        },
    ),
}
