"""A model's own errors in the shape that the front door answers with (see `servers.errors`).

An error that a model's process already gave in this shape (vLLM's own, or Anthropic's on its route) is left alone.
"""

from typing import Any

import msgspec

from servers.errors import ApiError


def translate(status: int, body: bytes, request_type: str, request_body: bytes) -> tuple[int, bytes]:
    """A child's error in OpenAI's shape, with the status that the client should see.

    LitServe answers 422 or 500 to a request that is not the JSON it claims to be. That is the client's mistake, and it
    is looked for here, after the fact, where it costs the requests that succeed nothing.
    """
    if status in (422, 500) and not request_type.startswith(_FORMS) and (problem := _json_problem(request_body)):
        fault = ApiError(400, f"expected a body of JSON or a form: {problem}", code="invalid_json")
        return fault.status, fault.body()
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        document = body.decode(errors="replace")[:500]
    if isinstance(document, dict) and isinstance(document.get("error"), dict):
        if status != 501:
            return status, body
        document = document["error"].get("message", document)
    message, param = _words(document)
    if status == 501:  # vLLM has routes that are for other models than this one
        return 400, ApiError(400, message, code="unsupported_route", param="model").body()
    return status, ApiError(status, message, code=_CODES.get(status, "model_error"), param=param).body()


_FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")
_CODES = {400: "invalid_request", 404: "not_found", 413: "request_too_large", 422: "invalid_request"}


def _json_problem(body: bytes) -> str | None:
    try:
        msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        return str(problem)
    return None


def _words(document: Any) -> tuple[str, str | None]:
    """Message and field from FastAPI's `detail`: a text, or a list of what its validation found."""
    detail = document.get("detail", document) if isinstance(document, dict) else document
    if isinstance(detail, list) and detail and isinstance(detail[0], dict) and "loc" in detail[0]:
        first = detail[0]
        param = ".".join(str(part) for part in first["loc"] if part != "body") or None
        problem = str(first.get("msg", "invalid")).removeprefix("Value error, ")
        return f"{param or 'body'}: {problem}", param
    return detail if isinstance(detail, str) else msgspec.json.encode(detail).decode(), None
