"""What an API declares of its requests and answers, added to LitServe's own OpenAPI document.

LitServe documents the signatures only: an API that takes the raw request has no body there, and one that streams
answers JSON. So an API may declare its bodies and its answer as JSON schemas: `request_schemas`, by media type, and
`response_schema`. They are documentation; nothing is checked against them.
"""

from typing import Any

from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from fastapi.routing import APIRoute


def describe(app: FastAPI, api: Any) -> None:
    """Add to the document of `app` what the API declares, as text and as schemas."""
    for route in app.routes:
        if isinstance(route, APIRoute) and "POST" in route.methods and route.path == api.api_path:
            _describe(route, api)


def _describe(route: APIRoute, api: Any) -> None:
    descriptions = {
        "Takes": getattr(api, "input_description", None),
        "Answers": getattr(api, "output_description", None),
    }
    description = "\n\n".join(f"{verb}: {text}" for verb, text in descriptions.items() if text)
    extra: dict[str, Any] = {"description": description} if description else {}
    if requests := getattr(api, "request_schemas", None):
        content = {media_type: {"schema": schema} for media_type, schema in requests.items()}
        extra["requestBody"] = {"required": True, "content": content}
    if api.stream and api.spec:
        extra["responses"] = {"200": {"content": {"text/event-stream": {}}}}  # beside JSON, as the request asks for
    elif api.stream:
        route.response_class = StreamingResponse  # it has no media type, as LitServe's streams have none
        part = {"schema": {"type": "string", "format": "binary"}}
        extra["responses"] = {"200": {"content": {"application/octet-stream": part}}}
    elif schema := getattr(api, "response_schema", None):
        extra["responses"] = {"200": {"content": {"application/json": {"schema": schema}}}}
    route.openapi_extra = extra
