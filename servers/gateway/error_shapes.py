"""The shapes of errors: the clients of a protocol see an error only in that protocol's own form.

A shape is used for a whole answer and, once an event stream has begun, for an event in it.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from clients.documents import Error, InferenceError
from servers.errors import ApiError

_ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
_SEQUENCE_NUMBER = re.compile(rb'"sequence_number": ?(\d+)')


@dataclass(frozen=True)
class ErrorShape:
    """How a protocol spells errors.

    `body` makes the JSON of an error from it and the request id; `event` a whole event from these and from the last
    bytes that were sent. `is_openai` says whether the clients take errors in OpenAI's shape as well, so that a model's
    own errors go to them as they are. `document` is the type of a whole answer, for the OpenAPI document.
    """

    body: Callable[[ApiError, str], bytes]
    event: Callable[[ApiError, str, bytes], bytes]
    is_openai: bool = True
    document: type = Error


def plain(body: Callable[[ApiError, str], bytes], *, is_openai: bool = True, document: type = Error) -> ErrorShape:
    """The shape of a protocol whose error events have no name."""

    def event(error: ApiError, request_id: str, _: bytes) -> bytes:
        return b"data: " + body(error, request_id) + b"\n\n"

    return ErrorShape(body, event, is_openai, document)


def _anthropic_body(error: ApiError, request_id: str) -> bytes:
    kind = _ANTHROPIC_TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "api_error")
    detail = {"type": kind, "message": error.message}
    return msgspec.json.encode({"type": "error", "error": detail, "request_id": request_id})


def _anthropic_event(error: ApiError, request_id: str, _: bytes) -> bytes:
    return b"event: error\ndata: " + _anthropic_body(error, request_id) + b"\n\n"


def _responses_event(error: ApiError, request_id: str, tail: bytes) -> bytes:
    """The event `error`; the SDK raises for the `error` object in it, and yields it to whoever reads events raw."""
    numbers = _SEQUENCE_NUMBER.findall(tail)
    document = {
        "type": "error",
        "sequence_number": int(numbers[-1]) + 1 if numbers else 0,
        "code": error.code,
        "message": error.message,
        "param": error.param,
        "error": error.detail(request_id),
    }
    return b"event: error\ndata: " + msgspec.json.encode(document) + b"\n\n"


def _kserve_body(error: ApiError, _request_id: str) -> bytes:
    return msgspec.json.encode(InferenceError(error=error.message))


OPENAI = plain(ApiError.body)
RESPONSES = ErrorShape(ApiError.body, _responses_event)
ANTHROPIC = ErrorShape(_anthropic_body, _anthropic_event, is_openai=False)
KSERVE = plain(_kserve_body, is_openai=False, document=InferenceError)
