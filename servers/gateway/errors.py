"""Errors of a model's process, as errors of the front door (see `servers.errors`)."""

import logging
from typing import Any

import msgspec

from servers.engines.base import Rules
from servers.errors import ApiError
from servers.gateway.exchange import Exchange

_log = logging.getLogger("litport.gateway")

_FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")
_CODES = {400: "invalid_request", 404: "not_found", 413: "request_too_large", 422: "invalid_request"}


def translate(status: int, body: bytes, exchange: Exchange, rules: Rules | None = None) -> ApiError | bytes:
    """What the client gets for a response of a model's process with this status and body: an error, or this body.

    A body that has an `error` object already, in a shape that the route's clients take, is sent on; `rules` may make
    its message clearer. LitServe answers 422 or 500 to a request that is not the JSON that it claims to be, which is
    the client's mistake. It is looked for here, after the fact, so that requests that succeed pay nothing for it.
    """
    is_form = exchange.request.content_type.startswith(_FORMS)
    is_json = not is_form and not exchange.content.is_opaque
    if status in (422, 500) and is_json and (problem := _json_problem(exchange.body)):
        return ApiError(400, f"expected a body of JSON or a form: {problem}", code="invalid_json")
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        document = body.decode(errors="replace")[:500]
    detail = document.get("error") if isinstance(document, dict) else None
    if isinstance(detail, dict):
        error, line = (detail, "") if rules is None else rules.explain(detail)
        if line:
            _log.info("%s is a %d: %s", exchange.request.path, status, line, extra=exchange.log_fields())
        if status != 501 and exchange.response.errors.is_openai:
            return body if error is detail else msgspec.json.encode({**document, "error": error})
        message, param = str(error.get("message", error)), error.get("param")
    else:
        message, param = _message_and_param(document)
        if is_form and status == 422 and param is None:  # an API that takes JSON only
            message += f"; the body came as {exchange.request.content_type.partition(';')[0]}"
    if status == 501:  # vLLM has routes that are for other models than this one
        return ApiError(400, message, code="unsupported_route", param="model")
    return ApiError(status, message, code=_CODES.get(status, "model_error"), param=param)


def _json_problem(body: bytes) -> str | None:
    try:
        msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        return str(problem)
    return None


def _message_and_param(document: Any) -> tuple[str, str | None]:
    """Message and field from FastAPI's `detail`: a text, or the list of problems from its validation."""
    detail = document.get("detail", document) if isinstance(document, dict) else document
    if isinstance(detail, list) and detail and isinstance(detail[0], dict) and "loc" in detail[0]:
        first = detail[0]
        param = ".".join(str(part) for part in first["loc"] if part != "body") or None
        problem = str(first.get("msg", "invalid")).removeprefix("Value error, ")
        return f"{param or 'body'}: {problem}", param
    return detail if isinstance(detail, str) else msgspec.json.encode(detail).decode(), None
