"""The datatypes of the Open Inference Protocol as numpy arrays, from and to bytes and JSON.

BYTES is an array of `bytes` objects, each with its length before it (4 bytes, little endian). numpy has no bfloat16:
BF16 is float32 in arrays, and bfloat16, nearest to the nearest, on the wire. Everything else is little endian as it
comes, without a copy.
"""

import struct
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_DTYPES = {
    "BOOL": "?",
    "UINT8": "u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "BF16": "<f4",
    "FP32": "<f4",
    "FP64": "<f8",
    "BYTES": "O",
}
DATATYPES = tuple(_DTYPES)
_LENGTH = struct.Struct("<I")
_BF16_BYTES = 2


def dtype_of(datatype: str) -> np.dtype[Any]:
    """The dtype of arrays of this datatype."""
    return np.dtype(_DTYPES[datatype])


def byte_size(datatype: str, shape: Sequence[int]) -> int | None:
    """The size of a tensor in bytes; None for BYTES, whose elements differ."""
    if datatype == "BYTES":
        return None
    return prod(shape) * (_BF16_BYTES if datatype == "BF16" else dtype_of(datatype).itemsize)


def from_bytes(datatype: str, shape: Sequence[int], data: bytes, offset: int, size: int) -> Array:
    """The tensor in `size` bytes of `data` at `offset`; numbers share its memory, and so are read-only.

    `size` must be that of `byte_size`. Raises ValueError for elements that do not fit their lengths, or the shape.
    """
    if datatype == "BYTES":
        return _split(data, offset, offset + size, prod(shape)).reshape(shape)
    count = prod(shape)
    if datatype == "BOOL":
        flags: Array = np.frombuffer(data, np.uint8, count, offset) != 0
        return flags.reshape(shape)
    if datatype == "BF16":
        halves = np.frombuffer(data, "<u2", count, offset)
        floats: Array = (halves.astype("<u4") << 16).view("<f4")
        return floats.reshape(shape)
    return np.frombuffer(data, dtype_of(datatype), count, offset).reshape(shape)


def to_bytes(datatype: str, array: Array) -> Array | bytes:
    """The tensor as an object with the bytes of the wire."""
    if datatype == "BYTES":
        return b"".join(part for element in array.flat for part in (_LENGTH.pack(len(element)), element))
    if datatype == "BF16":
        bits = np.ascontiguousarray(array).view("<u4")
        nearest = ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype("<u2")
        return np.where(np.isnan(array), np.uint16(0x7FC0), nearest)
    return np.ascontiguousarray(array)


def from_json(datatype: str, shape: Sequence[int], value: Any) -> Array:
    """The tensor in a list, flat or nested as the shape is. Raises ValueError with what was expected and what came."""
    if datatype == "BYTES":
        array = _objects(value)
        for element in array.flat:
            if not isinstance(element, str):
                raise ValueError(f"expected strings, got {type(element).__name__}")
        array = _map(str.encode, array)
    else:
        array = _numbers(datatype, value)
    if array.ndim != 1 and array.shape != tuple(shape):
        raise ValueError(f"expected a flat list, or one nested as {list(shape)}, got one of {list(array.shape)}")
    if array.size != prod(shape):
        raise ValueError(f"expected {prod(shape)} elements for shape {list(shape)}, got {array.size}")
    return array.reshape(shape)


def to_json(datatype: str, array: Array) -> list[Any]:
    """The elements in a flat list. Raises ValueError for BYTES that are no UTF-8."""
    flat: list[Any] = array.reshape(-1).tolist()
    return [element.decode() for element in flat] if datatype == "BYTES" else flat


def from_answer(datatype: str, value: Any) -> Array:
    """The array of what an API answers: an array, a torch tensor, or a list. Raises ValueError for another type."""
    if hasattr(value, "detach"):  # torch's; numpy knows no bfloat16
        value = value.detach().cpu()
        value = (value.float() if str(value.dtype) == "torch.bfloat16" else value).numpy()
    if datatype == "BYTES":
        return _map(_encode, _objects(value))
    array, dtype = np.asarray(value), dtype_of(datatype)
    if not np.can_cast(array.dtype, dtype, "same_kind"):
        raise ValueError(f"expected {datatype}, got {array.dtype}")
    return array.astype(dtype, copy=False)


def _split(data: bytes, offset: int, end: int, count: int) -> Array:
    elements: list[bytes] = []
    while offset < end:
        begin = offset + _LENGTH.size
        stop = begin + _LENGTH.unpack_from(data, offset)[0] if begin <= end else end + 1
        if stop > end:
            raise ValueError(f"element {len(elements)} goes beyond the end of the tensor's bytes")
        elements.append(data[begin:stop])
        offset = stop
    if len(elements) != count:
        raise ValueError(f"expected {count} elements, got {len(elements)}")
    array = np.empty(count, object)
    array[:] = elements
    return array


def _numbers(datatype: str, value: Any) -> Array:
    dtype = dtype_of(datatype)
    try:
        array = np.asarray(value)
    except ValueError:
        raise ValueError("expected lists of equal lengths") from None
    except OverflowError:
        raise ValueError(f"expected numbers of {datatype}, got one out of its range") from None
    if array.size == 0:
        return array.astype(dtype)
    if dtype.kind in "iu" and array.dtype.kind == "f":  # numpy's guess for whole numbers beyond INT64
        numbers = np.asarray(value, object)
        if all(type(element) is int for element in numbers.flat):
            return _in_range(numbers, dtype)
    kinds = {"b": "b", "i": "iu", "u": "iu", "f": "iuf"}[dtype.kind]
    if array.dtype.kind not in kinds:
        expected = {"b": "true or false", "f": "numbers"}.get(dtype.kind, "whole numbers")
        raise ValueError(f"expected {expected}, got {_KINDS.get(array.dtype.kind, 'values of several types')}")
    return array.astype(dtype) if dtype.kind == "b" else _in_range(array, dtype)


def _in_range(array: Array, dtype: np.dtype[Any]) -> Array:
    limits = np.iinfo(dtype) if dtype.kind in "iu" else np.finfo(dtype)
    finite = array[np.isfinite(array)] if array.dtype.kind == "f" else array
    if finite.size and not limits.min <= finite.min() <= finite.max() <= limits.max:
        raise ValueError(f"expected numbers from {limits.min} to {limits.max}, got one out of this range")
    return array.astype(dtype)


_KINDS = {"b": "booleans", "i": "whole numbers", "u": "whole numbers", "f": "numbers with fractions", "U": "strings"}


def _objects(value: Any) -> Array:
    """An array of objects; np.array would take lists of equal lengths apart, which is meant, and raise for others."""
    try:
        return np.array(value, dtype=object, ndmin=1)
    except ValueError:
        raise ValueError("expected lists of equal lengths") from None


def _map(function: Callable[[Any], bytes], array: Array) -> Array:
    result = np.empty(array.shape, object)
    result.reshape(-1)[:] = [function(element) for element in array.flat]
    return result


def _encode(element: Any) -> bytes:
    if isinstance(element, str):
        return element.encode()
    if isinstance(element, bytes):
        return element
    raise ValueError(f"expected text or bytes, got {type(element).__name__}")
