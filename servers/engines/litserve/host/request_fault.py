"""The fault of a request that an exception of an API's code tells: a field that it lacks, or one of another type.

The code took the request for something that it is not. Where that is certain it is the caller's mistake, and the
exception is no error of the API's.
"""

import ast
import linecache
from collections.abc import Mapping, Sequence
from itertools import islice, pairwise
from types import TracebackType
from typing import Any

from starlette.datastructures import FormData, UploadFile

# A request with more values than this is not searched.
_MOST_VALUES = 10_000
_KINDS = {
    str: "text",
    list: "a list",
    dict: "an object",
    FormData: "a form",
    UploadFile: "an upload in a form (multipart/form-data)",
}
_UPLOAD_FIELDS = ("file", "filename", "headers", "size")  # which its class does not show
_NAMES = {**_KINDS, int: "a number", float: "a number", bool: "true or false", type(None): "null"}


def describe(error: BaseException, request: Any) -> str | None:
    """The fault in a sentence; None where the exception has another cause, or may have."""
    if isinstance(error, KeyError):
        key = _missing_key(error, request)
        return None if key is None else f"the request has no field {key!r}"
    if isinstance(error, TypeError):
        return _subscript_fault(error, request)
    return _attribute_fault(error, request) if isinstance(error, AttributeError) else None


def _missing_key(error: KeyError, request: Any) -> str | None:
    """The field that the API's code asked the request for, if that is what failed, and not a table of its own.

    The places that it went through tell the expressions: a mapping of the request must be what one looked it up in. Of
    a form, which is no dict, that is not the last place.
    """
    if len(error.args) != 1 or not isinstance(error.args[0], str):
        return None
    mappings = _mappings(request)
    containers = map(_container, _traces(error))
    return error.args[0] if any(container is value for container in containers for value in mappings) else None


def _subscript_fault(error: TypeError, request: Any) -> str | None:
    """The body, or a field of it, is no object, and the code looked up a field of it."""
    traces = _traces(error)
    expression = _expression(traces[-1]) if traces else None
    if not isinstance(expression, ast.Subscript):
        return None
    names = traces[-1].tb_frame.f_locals
    value = _value(expression.value, names)
    if type(value) not in _NAMES or isinstance(value, Mapping):
        return None
    kind = _NAMES[type(value)]
    if value is request:
        return f"the body: expected an object, got {kind}"
    match expression.value:
        case ast.Subscript(value=inner, slice=ast.Constant(value=str(key))):
            if any(_value(inner, names) is mapping for mapping in _mappings(request)):
                return f"the field {key!r}: expected an object, got {kind}"
    return None


def _attribute_fault(error: AttributeError, request: Any) -> str | None:
    """The code called a method of another type of JSON, or of an upload."""
    value, name = error.obj, error.name
    if name is None or type(value) not in _NAMES or hasattr(value, name):
        return None
    expected = [kind for of, kind in _KINDS.items() if hasattr(of, name)]
    if name in _UPLOAD_FIELDS:
        expected.append(_KINDS[UploadFile])
    if not expected:
        return None
    place = "the body" if value is request else _field(value, request, error)
    return None if place is None else f"{place}: expected {' or '.join(expected)}, got {_NAMES[type(value)]}"


def _field(value: Any, request: Any, error: AttributeError) -> str | None:
    """The field of the request that has this value; null and true are everybody's.

    Python has one object for each small number and short text, so that another one of the API's own may be the same:
    of these, a name or a key in the code, or in a call that passed it on, must be that of the field.
    """
    if value is None or isinstance(value, bool):
        return None
    is_shared = isinstance(value, int) or (isinstance(value, str) and len(value) <= 1)
    names = _names_in_code(error) if is_shared else set()
    for mapping in _mappings(request):
        for key, item in mapping.items():
            if item is value and (not is_shared or key in names):
                return f"the field {key!r}"
    return None


def _names_in_code(error: AttributeError) -> set[str]:
    """The names and keys by which the code had what the attribute was asked of, and its callers what they passed on."""
    traces = _traces(error)[::-1]
    expression = _expression(traces[0]) if traces else None
    match expression.func if isinstance(expression, ast.Call) else expression:
        case ast.Attribute(value=value):
            names = _labels([value])
        case _:
            return set()
    for inner, outer in pairwise(traces):
        code = inner.tb_frame.f_code
        call = _expression(outer)
        if names.isdisjoint(code.co_varnames[: code.co_argcount]) or not isinstance(call, ast.Call):
            break
        names |= _labels(call.args)
    return names


def _labels(expressions: Sequence[ast.expr]) -> set[str]:
    """The names, and the keys of `x["key"]`."""
    labels = set()
    for expression in expressions:
        match expression:
            case ast.Name(id=label) | ast.Subscript(slice=ast.Constant(value=str(label))):
                labels.add(label)
    return labels


def _traces(error: BaseException) -> list[TracebackType]:
    """The places that the exception went through; the last is where it was raised."""
    traces = []
    trace = error.__traceback__
    while trace is not None:
        traces.append(trace)
        trace = trace.tb_next
    return traces


def _container(trace: TracebackType) -> Any:
    """What was subscripted, or asked to pop a key, where the exception was raised; None where that cannot be told."""
    match _expression(trace):
        case ast.Subscript(value=inner) | ast.Call(func=ast.Attribute(value=inner, attr="pop")):
            return _value(inner, trace.tb_frame.f_locals)
    return None


def _expression(trace: TracebackType) -> ast.expr | None:
    """The expression that was evaluated in this place; None where that cannot be told."""
    code = trace.tb_frame.f_code
    line, end_line, column, end_column = next(islice(code.co_positions(), trace.tb_lasti // 2, None))
    if line is None or end_line is None or column is None or end_column is None:
        return None
    lines = [linecache.getline(code.co_filename, number).encode() for number in range(line, end_line + 1)]
    lines[-1] = lines[-1][:end_column]
    lines[0] = lines[0][column:]
    try:
        return ast.parse(b"".join(lines).decode(), mode="eval").body
    except (SyntaxError, ValueError):
        return None


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
