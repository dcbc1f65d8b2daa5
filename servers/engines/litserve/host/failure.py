"""What a client is told of an exception of an API's code.

As LitServe has it: an exception with a status and a detail of its own (fastapi's HTTPException, or another that looks
like it) is answered with those, and any other with 500 and no word of it. Three are told apart here, since their
messages are for the client: a fault of the request, an answer that cannot be encoded, and a full device.
"""

import json
import logging
from http import HTTPStatus
from typing import Any

import msgspec

from servers.engines.litserve.api import OUT_OF_MEMORY, is_out_of_memory
from servers.engines.litserve.host import request_fault
from servers.engines.litserve.host.encode import EncodeError
from servers.engines.litserve.host.headers import valid

INTERNAL_ERROR = "Internal server error"
_log = logging.getLogger("litport.worker")


class RefusalError(Exception):
    """An error of the host's own, for the client to read."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status_code = status
        self.detail = detail


class BatchError(RefusalError):
    """What predict returned does not belong to the requests of the batch; doing it again would not help."""

    def __init__(self, detail: str) -> None:
        super().__init__(500, detail)


class Failure(msgspec.Struct):
    """The exception's class, and the answer that tells it; one that is not `is_expected` belongs in the log."""

    error: str
    status: int
    detail: Any
    body: bytes
    headers: tuple[tuple[str, str], ...]
    is_expected: bool


def failure_of(error: BaseException, request: Any = None) -> Failure:
    """The answer to `error`, which the API raised over `request`. It raises nothing, whatever the error is made of."""
    try:
        return _failure_of(error, request)
    except Exception:
        _log.exception("an exception of the API's cannot be told to the client")
        return _failure(error, 500, INTERNAL_ERROR, is_expected=False)


def _failure_of(error: BaseException, request: Any) -> Failure:
    if isinstance(error, EncodeError):
        return _failure(error, 500, str(error), is_expected=False)
    if is_out_of_memory(error):
        return _failure(error, 503, OUT_OF_MEMORY, is_expected=False)
    if (fault := request_fault.describe(error, request)) is not None:
        return _failure(error, 422, fault, is_expected=True)
    status = getattr(error, "status_code", None)
    if isinstance(status, int) and 200 <= status <= 599 and hasattr(error, "detail"):
        headers = getattr(error, "headers", None)
        is_expected = status < 500 or isinstance(error, RefusalError)
        return _failure(error, status, error.detail, is_expected=is_expected, headers=headers)
    return _failure(error, 500, INTERNAL_ERROR, is_expected=False)


def _failure(error: BaseException, status: int, detail: Any, *, is_expected: bool, headers: Any = None) -> Failure:
    name = type(error).__name__
    try:
        body = json.dumps({"detail": detail}, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError):
        body = json.dumps({"detail": str(detail)}).encode()
    fields = valid(headers)
    if status in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED):
        return Failure(name, status, detail, b"", tuple(fields), is_expected)
    return Failure(name, status, detail, body, (*fields, ("content-type", "application/json")), is_expected)
