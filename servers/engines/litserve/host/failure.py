"""What a client is told of an exception of an API's code.

As LitServe has it: an exception with a status and a detail of its own (fastapi's HTTPException, or another that looks
like it) is answered with those, and any other with 500 and no word of it. Three are told apart here, since their
messages are for the client: a field that the request lacks, an answer that cannot be encoded, and a full device.
"""

import ast
import json
import linecache
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from itertools import islice
from types import TracebackType
from typing import Any

import msgspec

from servers.engines.litserve.api import OUT_OF_MEMORY, is_out_of_memory
from servers.engines.litserve.host.encode import EncodeError

# A request with more values than this is not searched for the one that lacks a field.
_MOST_VALUES = 10_000
INTERNAL_ERROR = "Internal server error"


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
    """The answer to `error`, which the API raised over `request`."""
    if isinstance(error, EncodeError):
        return _failure(error, 500, str(error), is_expected=False)
    if is_out_of_memory(error):
        return _failure(error, 503, OUT_OF_MEMORY, is_expected=False)
    if isinstance(error, KeyError) and (key := _missing_key(error, request)) is not None:
        return _failure(error, 422, f"the request has no field {key!r}", is_expected=True)
    status = getattr(error, "status_code", None)
    if isinstance(status, int) and 100 <= status <= 599 and hasattr(error, "detail"):
        headers = getattr(error, "headers", None)
        is_expected = status < 500 or isinstance(error, RefusalError)
        return _failure(error, status, error.detail, is_expected=is_expected, headers=headers)
    return _failure(error, 500, INTERNAL_ERROR, is_expected=False)


def _failure(
    error: BaseException, status: int, detail: Any, *, is_expected: bool, headers: Mapping[str, str] | None = None
) -> Failure:
    name = type(error).__name__
    try:
        body = json.dumps({"detail": detail}, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError):
        body = json.dumps({"detail": str(detail)}).encode()
    if status < 200 or status in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED):
        return Failure(name, status, detail, b"", tuple((headers or {}).items()), is_expected)
    fields = [(name.lower(), value) for name, value in (headers or {}).items()]
    return Failure(name, status, detail, body, (*fields, ("content-type", "application/json")), is_expected)


def _missing_key(error: KeyError, request: Any) -> str | None:
    """The field that the API's code asked the request for, if that is what failed, and not a table of its own.

    The places that it went through tell the expressions: a mapping of the request must be what one looked it up in. Of
    a form, which is no dict, that is not the last place.
    """
    trace = error.__traceback__
    if len(error.args) != 1 or not isinstance(error.args[0], str):
        return None
    mappings = _mappings(request)
    while trace is not None:
        container = _container(trace)
        if any(container is value for value in mappings):
            return error.args[0]
        trace = trace.tb_next
    return None


def _container(trace: TracebackType) -> Any:
    """What was subscripted where the exception was raised; None where that cannot be told."""
    code = trace.tb_frame.f_code
    line, end_line, column, end_column = next(islice(code.co_positions(), trace.tb_lasti // 2, None))
    if line is None or end_line is None or column is None or end_column is None:
        return None
    lines = [linecache.getline(code.co_filename, number).encode() for number in range(line, end_line + 1)]
    lines[-1] = lines[-1][:end_column]
    lines[0] = lines[0][column:]
    try:
        expression = ast.parse(b"".join(lines).decode(), mode="eval").body
    except (SyntaxError, ValueError):
        return None
    return _value(expression.value, trace.tb_frame.f_locals) if isinstance(expression, ast.Subscript) else None


def _value(expression: ast.expr, names: Mapping[str, Any]) -> Any:
    """The value of `name` or `name["key"]...`, without running code of anybody's."""
    match expression:
        case ast.Name(id=name):
            return names.get(name)
        case ast.Subscript(value=inner, slice=ast.Constant(value=key)):
            container = _value(inner, names)
            if type(container) is dict:
                return container.get(key)
            return container[key] if type(container) is list and isinstance(key, int) and key < len(container) else None
    return None


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    """The mappings in a request, itself among them."""
    result: list[Mapping[str, Any]] = []
    waiting, count = [value], 0
    while waiting and count < _MOST_VALUES:
        current = waiting.pop()
        count += 1
        if isinstance(current, Mapping):
            result.append(current)
            waiting.extend(item for item in current.values() if isinstance(item, Mapping | list))
        elif isinstance(current, Sequence) and not isinstance(current, str | bytes):
            waiting.extend(item for item in current if isinstance(item, Mapping | list))
    return result
