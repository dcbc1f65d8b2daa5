"""JSON, read strictly: only what every parser reads in the same way, and what no parser needs long for.

Engines answer 500 to what they cannot parse or carry on. A body that the front door and an engine read differently
could be checked as one thing and served as another.
"""

import json
import math
import re
from array import array
from itertools import accumulate
from typing import Any, NoReturn

import msgspec

from servers.errors import ApiError
from servers.gateway.body.rejection import describe_value, quote, shorten

# Up to here the body is parsed by Python's json, which can see a key twice; beyond, by msgspec, several times as fast,
# and the last of two keys wins, as it does in the engines.
_SMALL_BYTES = 2**20
# 64 MiB of "[]," would be 22 million lists: seconds and gigabytes in whichever process parses them. Honest bodies that
# large are pictures and arrays of numbers. The marks are counted beyond _SMALL_BYTES, the containers always.
_MAX_CONTAINERS = 2**19
_MAX_MARKS = 2**21


def parse(body: bytes, max_depth: int, *, only_object: bool) -> Any:
    """The value of a JSON body. A large body that need not be an object is only checked, and its value is not built.

    Raises ApiError 400 for what is not JSON, and for JSON that two parsers may read differently or cannot carry on.
    """
    if only_object and body[:64].lstrip(b" \t\r\n")[:1] == b"[":  # before 64 MiB of lists are counted
        raise ApiError(400, "the body: expected an object, got a list", code="invalid_type")
    is_small = len(body) <= _SMALL_BYTES
    try:
        text = body.decode() if is_small else ""
        if not is_small and not body.isascii():
            body.decode()
    except UnicodeDecodeError as problem:
        raise _invalid(f"byte {problem.start} is not UTF-8") from None
    _check_shape(body, max_depth, 0 if is_small else _MAX_MARKS if only_object else 2 * _MAX_MARKS)
    try:
        if not is_small:
            document = msgspec.json.decode(body) if only_object else msgspec.json.decode(body, type=msgspec.Raw)
        else:
            document = _STRICT.decode(text)
            if _SURROGATE.search(body):
                _check_encodable(document)
    except json.JSONDecodeError as problem:
        raise _invalid(f"{problem.msg} at character {problem.pos}{_hint(text, problem.pos)}") from None
    except msgspec.DecodeError as problem:
        raise _invalid(str(problem)) from None
    except RecursionError:  # the depth was checked: only where that limit is close to Python's own
        raise _invalid("it is nested too deeply") from None
    except ValueError:  # Python's limit for the digits of an int, far beyond any number in use
        raise _invalid("a whole number in it has too many digits") from None
    if only_object and not isinstance(document, dict):
        raise ApiError(400, f"the body: expected an object, got {describe_value(document)}", code="invalid_type")
    return document


def check_outline(body: bytes, max_depth: int) -> None:
    """Raise ApiError 400 for a body that is nested too deeply or has too many parts, whether it is JSON or not."""
    _check_shape(body, max_depth, 0 if len(body) <= _SMALL_BYTES else 2 * _MAX_MARKS)


def _check_shape(body: bytes, max_depth: int, max_marks: int) -> None:
    """Reject a body that is nested too deeply or has too many parts, before anything is built from it."""
    if not max_marks:
        brackets = body.count(b"[") + body.count(b"{")
    else:
        marks = body.translate(None, _NO_MARKS)
        brackets = marks.count(b"[") + marks.count(b"{")
        # Marks within strings count too; only a text that is longer than any model reads reaches the limit by them.
        if max(brackets, marks.count(b","), marks.count(b'"'), marks.count(b"\\")) > max_marks:
            message = f'a body of {len(body)} bytes may have at most {max_marks} of each of , " \\ and opening brackets'
            raise _invalid(message)
    if brackets <= max_depth:
        return
    if b"\\" in body:
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    outside_strings = b"".join(body.translate(None, _NO_OUTLINE).split(b'"')[::2])
    steps = array("b", outside_strings.translate(_STEPS))
    if len(steps) > 2 * _MAX_CONTAINERS:
        raise _invalid(f"expected at most {_MAX_CONTAINERS} lists and objects, got {len(steps) // 2}")
    depth = max(accumulate(steps), default=0)
    if depth > max_depth:
        raise _invalid(f"it is nested {depth} deep, and at most {max_depth} is taken (limits.max_json_depth)")


_NO_MARKS = bytes(set(range(256)) - set(b'"[{,\\'))
_NO_OUTLINE = bytes(set(range(256)) - set(b'"[]{}'))
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")


def _reject_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        keys: set[str] = set()
        twin = next(key for key, _ in pairs if key in keys or keys.add(key))  # type: ignore[func-returns-value]
        raise _invalid(f"the key {quote(twin)} is there twice in one object", _as_param(twin))
    return document


def _parse_float(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise _invalid("a number in it is too large for a double")
    return number


def _reject_constant(text: str) -> NoReturn:
    raise _invalid(f"{text} is no JSON value")


_STRICT = json.JSONDecoder(object_pairs_hook=_reject_twins, parse_float=_parse_float, parse_constant=_reject_constant)
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def _check_encodable(document: Any) -> None:
    """Reject half a surrogate pair: JSON can spell it, no encoding can carry it, and servers answer 500 to it."""
    for name, value in document.items() if isinstance(document, dict) else [("", document)]:
        try:
            json.dumps({name: value}, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise _invalid("a string in it has half of a surrogate pair", _as_param(name)) from None


def _as_param(key: str) -> str | None:
    # Another key may be one that cannot be encoded.
    return shorten(key) if key.isascii() and key.isprintable() and key else None


def _hint(text: str, position: int) -> str:
    """What people most often do wrong where Python's parser stops."""
    character = text[position : position + 1]
    if not text.strip():
        return "; the body is empty"
    if text.startswith("\ufeff"):
        return "; a byte order mark stands before it"
    if character == "'":
        return "; names and texts stand in double quotes"
    if character in ("}", "]") and text[:position].rstrip().endswith(","):
        return "; a comma stands before the closing bracket"
    return ""


def _invalid(problem: str, param: str | None = None) -> ApiError:
    return ApiError(400, f"the body cannot be read as JSON: {problem}", code="invalid_json", param=param)
