"""What an OpenAI-compatible server takes and answers, as OpenAPI: for servers that publish no document of their own.

Only what most callers send is described; servers take more, and so do these schemas.
"""

from collections.abc import Iterable, Mapping
from typing import Any

CHAT, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"

_ANYTHING: dict[str, Any] = {}
_TEXT, _NUMBER, _COUNT = {"type": "string"}, {"type": "number"}, {"type": "integer", "minimum": 1}
_SAMPLING = {
    "model": _TEXT,
    "max_tokens": _COUNT,
    "temperature": {**_NUMBER, "minimum": 0},
    "top_p": {**_NUMBER, "minimum": 0, "maximum": 1},
    "seed": {"type": "integer"},
    "stop": {"anyOf": [_TEXT, {"type": "array", "items": _TEXT}]},
    "stream": {"type": "boolean", "default": False},
}
_MESSAGES = {
    "type": "array",
    "minItems": 1,
    "items": {"type": "object", "required": ["role"], "properties": {"role": _TEXT}},
}
_INPUT = {"anyOf": [_TEXT, {"type": "array", "items": _TEXT, "minItems": 1}]}
_BODIES: dict[str, tuple[str, str, dict[str, Any], list[str]]] = {
    CHAT: ("create_chat_completion", "Answer a conversation", {**_SAMPLING, "messages": _MESSAGES}, ["messages"]),
    COMPLETIONS: ("create_completion", "Continue a text", {**_SAMPLING, "prompt": _TEXT}, ["prompt"]),
    EMBEDDINGS: ("create_embedding", "Embed texts", {"model": _TEXT, "input": _INPUT}, ["input"]),
}


def openapi(paths: Iterable[str], more: Mapping[str, Iterable[str]] | None = None) -> dict[str, Any]:
    """The document of these paths, as far as they are described here; `more` are further fields of a path's body."""
    operations = {}
    for path in sorted(_BODIES.keys() & paths):
        operation_id, summary, properties, required = _BODIES[path]
        others = dict.fromkeys((more or {}).get(path, ()), _ANYTHING)
        operations[path] = {"post": _operation(operation_id, summary, {**others, **properties}, required)}
    return {"openapi": "3.1.0", "info": {"title": "OpenAI-compatible", "version": "1"}, "paths": operations}


def _operation(operation_id: str, summary: str, properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    body = {"type": "object", "properties": properties, "required": required}
    answers: dict[str, Any] = {"application/json": {"schema": {"type": "object"}}}
    if "stream" in properties:
        answers["text/event-stream"] = {"schema": _TEXT}
    return {
        "operationId": operation_id,
        "summary": summary,
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {"200": {"description": "The answer", "content": answers}},
    }
