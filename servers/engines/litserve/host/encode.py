"""Answers as bytes: what FastAPI makes of a value, and an error that names the place of what it cannot.

The C encoder of `json` gives the bytes that LitServe gives, and asks only for values that JSON does not know. Of those,
scalars and arrays of numpy and torch become numbers and lists, sets and iterators lists, functions and exceptions an
error, and everything else what `jsonable_encoder` makes of it.
"""

import json
import math
from collections import deque
from collections.abc import Callable, ItemsView, Iterable, KeysView, Mapping, ValuesView
from dataclasses import asdict, fields, is_dataclass
from types import BuiltinFunctionType, FunctionType, GeneratorType, MethodType
from typing import Any

from fastapi.encoders import jsonable_encoder
from litserve import LitAPI
from pydantic import BaseModel, TypeAdapter, ValidationError

Encode = Callable[[Any], bytes]
# jsonable_encoder makes a dict of a zip, and nothing of numpy's numbers in any of these.
_READ_ONCE = (GeneratorType, enumerate, filter, map, reversed, zip)
_LISTS = (*_READ_ONCE, set, frozenset, deque, range, KeysView, ValuesView, ItemsView)
# Of these it makes {}.
_NO_VALUES = (BaseException, FunctionType, MethodType, BuiltinFunctionType)


class EncodeError(Exception):
    """An answer that is no JSON; the message names the place and the type of the value."""


def encoder(adapter: TypeAdapter[Any] | None) -> Encode:
    """The encoder of an API's answers; `adapter` is for the type that encode_response promises."""
    if adapter is None:
        return to_json

    def encode(value: Any) -> bytes:
        try:
            return adapter.dump_json(adapter.validate_python(value, from_attributes=True), by_alias=True)
        except ValidationError as problem:
            first = problem.errors()[0]
            raise EncodeError(f"encode_response: {_place(first['loc'])}: {first['msg']}") from None
        except ValueError as problem:
            raise EncodeError(f"encode_response: {problem}") from None

    return encode


def part_bytes(part: Any) -> bytes:
    """A part of a stream as it is sent; text as UTF-8. Raises EncodeError."""
    if isinstance(part, str):
        return part.encode()
    if isinstance(part, bytes | bytearray | memoryview):
        return bytes(part)
    expected = "text, bytes, a dict or a pydantic model"
    raise EncodeError(f"encode_response yielded a {type(part).__name__}; expected {expected}")


def part_formatter(api: Any) -> Callable[[Any], Any]:
    """How the API makes text of a part of a stream; LitServe's own way knows nothing of numpy, and sends NaN."""
    if type(api).format_encoded_response is not LitAPI.format_encoded_response:
        own: Callable[[Any], Any] = api.format_encoded_response
        return own
    return _format_part


def _format_part(part: Any) -> Any:
    if isinstance(part, BaseModel):
        return part.model_dump_json() + "\n"
    if not isinstance(part, dict):
        return part
    try:
        return _text(part, _line) + "\n"
    except (ValueError, TypeError, RecursionError, AttributeError) as problem:
        raise EncodeError(_diagnosis(part, problem)) from None


def to_json(value: Any) -> bytes:
    """The value as JSON. Raises EncodeError."""
    try:
        return _text(value, _json).encode()
    except (ValueError, TypeError, RecursionError, AttributeError) as problem:
        raise EncodeError(_diagnosis(value, problem)) from None


def _text(value: Any, encode: Callable[[Any], str]) -> str:
    try:
        return encode(value)
    except TypeError as problem:  # a key that JSON does not know
        for path, leaf in _leaves(value, "", 0):
            if isinstance(leaf, _READ_ONCE):  # what it held is gone
                expected = f"expected a list, got a {type(leaf).__name__} ({problem})"
                raise EncodeError(f"encode_response: {path}: {expected}") from None
        plain = _with_plain_keys(value)
        try:
            return encode(plain)
        except TypeError:
            return encode(jsonable_encoder(plain))


def _with_plain_keys(value: Any) -> Any:
    """The value with keys of numpy, enumerations and the like as JSON has them; raises EncodeError for others."""
    if isinstance(value, dict):
        return {_plain_key(key): _with_plain_keys(item) for key, item in value.items()}
    return [_with_plain_keys(item) for item in value] if isinstance(value, list | tuple) else value


def _plain_key(key: Any) -> Any:
    if hasattr(key, "dtype") and hasattr(key, "item"):
        return key.item()
    plain = key if key is None or isinstance(key, str | int | float) else jsonable_encoder(key)
    if plain is None or isinstance(plain, str | int | float):
        return plain
    raise EncodeError(f"encode_response: a key of type {type(key).__name__} cannot be encoded as JSON")


def _encode_other(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return jsonable_encoder(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    if hasattr(value, "dtype") and hasattr(value, "tolist"):  # numpy's scalars and arrays, torch's tensors
        return _times(value) if _is_times(value) else value.tolist()
    if type(value).__module__.partition(".")[0] == "PIL":  # jsonable_encoder would take its attributes
        raise ValueError("a picture")
    if isinstance(value, _LISTS):
        return list(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, _NO_VALUES):
        raise ValueError("no value")
    return jsonable_encoder(value)


def _is_times(value: Any) -> bool:
    """Whether these are dates or durations of numpy that `tolist` makes bare numbers of."""
    if getattr(value.dtype, "kind", "") not in ("m", "M"):
        return False
    unit = str(value.dtype).partition("[")[2].rstrip("]").lstrip("0123456789")
    return unit in ("ns", "ps", "fs", "as") or (value.dtype.kind == "m" and unit in ("Y", "M"))


def _times(value: Any) -> Any:
    """Dates as ISO 8601 has them, durations in seconds, and None for none, in lists as the array is."""
    if value.ndim:
        return [_times(item) for item in value]
    text = str(value)
    if text == "NaT":
        return None
    if value.dtype.kind == "M":
        return text
    return (value / value.dtype.type(1, "s")).item()  # raises TypeError for months


_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_encode_other).encode


# As LitServe writes the lines of a stream.
_line = json.JSONEncoder(allow_nan=False, default=_encode_other).encode


def _diagnosis(value: Any, problem: Exception) -> str:
    for path, leaf in _leaves(value, "", 0):
        if _is_no_number(leaf):
            return f"encode_response: {path or 'the answer'}: {leaf} is no JSON number ({type(leaf).__name__})"
        try:
            _json(leaf).encode()
        except (ValueError, TypeError, RecursionError, AttributeError):
            return f"encode_response: {path or 'the answer'}: {type(leaf).__name__} cannot be encoded as JSON"
    return f"encode_response: the answer cannot be encoded as JSON: {problem}"


def _is_no_number(value: Any) -> bool:
    """Whether it is a NaN or an infinity; numpy's float32 is no float."""
    try:
        return (isinstance(value, float) or hasattr(value, "dtype")) and not math.isfinite(value)
    except TypeError:
        return False


def _place(path: Iterable[int | str]) -> str:
    place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return place.lstrip(".") or "the answer"


def _leaves(value: Any, path: str, depth: int) -> Iterable[tuple[str, Any]]:
    """The values that hold no others, each with its place, as in `scores[3]`."""
    if depth > 100:
        return
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    elif isinstance(value, BaseModel):
        value = dict(value)
    elif getattr(value, "shape", None) and hasattr(value, "dtype") and hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}" if path else str(key), depth + 1)
    elif isinstance(value, list | tuple | set | frozenset):
        for index, item in enumerate(value):
            yield from _leaves(item, f"{path}[{index}]", depth + 1)
    else:
        yield path, value
