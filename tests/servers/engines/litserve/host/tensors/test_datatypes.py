"""Tensors of every datatype come through bytes and JSON as they are; what does not fit is named."""

import math
import struct
from typing import Any

import numpy as np
import pytest
import torch

from servers.engines.litserve.host.tensors import datatypes
from servers.engines.litserve.host.tensors.datatypes import from_answer, from_bytes, from_json, to_bytes, to_json

NUMBERS = [datatype for datatype in datatypes.DATATYPES if datatype not in ("BYTES", "BOOL")]


def _wire(datatype: str, array: Any) -> bytes:
    part = to_bytes(datatype, array)
    return part if isinstance(part, bytes) else part.tobytes()


@pytest.mark.parametrize("datatype", NUMBERS)
def test_numbers_come_through_bytes_and_json(datatype: str) -> None:
    array = np.array([[0, 1, 2], [100, 5, 96]], datatypes.dtype_of(datatype))
    wire = _wire(datatype, array)
    assert len(wire) == datatypes.byte_size(datatype, array.shape)
    again = from_bytes(datatype, [2, 3], b"???" + wire + b"!", 3, len(wire))
    assert again.dtype == array.dtype
    assert again.tolist() == array.tolist()
    assert from_json(datatype, [2, 3], to_json(datatype, array)).tolist() == array.tolist()
    assert from_json(datatype, [2, 3], array.tolist()).tolist() == array.tolist()


def test_numbers_are_little_endian_and_share_the_memory_of_the_body() -> None:
    body = b"xx" + struct.pack("<2i", 1, -2)
    array = from_bytes("INT32", [2], body, 2, 8)
    assert array.tolist() == [1, -2]
    assert not array.flags.owndata
    assert not array.flags.writeable


def test_bytes_have_their_lengths_before_them() -> None:
    wire = b"\x03\x00\x00\x00abc\x00\x00\x00\x00\x01\x00\x00\x00\xff"
    array = from_bytes("BYTES", [3, 1], wire, 0, len(wire))
    assert array.tolist() == [[b"abc"], [b""], [b"\xff"]]
    assert _wire("BYTES", array) == wire


@pytest.mark.parametrize("wire", [b"\x03\x00\x00\x00ab", b"\x03\x00", b"\xff\xff\xff\xffab"])
def test_bytes_that_end_early_are_named(wire: bytes) -> None:
    with pytest.raises(ValueError, match="element 0 goes beyond the end of the tensor's bytes"):
        from_bytes("BYTES", [1], wire, 0, len(wire))


def test_another_number_of_bytes_elements_is_named() -> None:
    with pytest.raises(ValueError, match="expected 1 elements, got 2"):
        from_bytes("BYTES", [1], b"\0\0\0\0" * 2, 0, 8)


def test_bfloat16_is_float32_in_arrays_and_rounded_to_the_nearest_on_the_wire() -> None:
    values = np.array([1.0, 3.14159265, -1e30, 1.00390625, math.inf, 0.0], np.float32)
    expected = torch.from_numpy(values).to(torch.bfloat16)
    wire = _wire("BF16", values)
    assert wire == expected.view(torch.int16).numpy().tobytes()
    assert from_bytes("BF16", [6], wire, 0, 12).tolist() == expected.float().tolist()
    assert math.isnan(from_bytes("BF16", [1], _wire("BF16", np.array([math.nan], np.float32)), 0, 2)[0])
    assert from_answer("BF16", expected).tolist() == expected.float().tolist()


def test_booleans_come_as_one_byte_each() -> None:
    assert from_bytes("BOOL", [3], b"\0\1\2", 0, 3).tolist() == [False, True, True]
    assert _wire("BOOL", np.array([True, False])) == b"\1\0"
    assert from_json("BOOL", [2], [True, False]).tolist() == [True, False]


def test_whole_numbers_keep_all_of_their_digits() -> None:
    assert from_json("UINT64", [3], [1, 2**64 - 1, 2**63]).tolist() == [1, 2**64 - 1, 2**63]
    assert from_json("INT64", [1], [-(2**63)]).tolist() == [-(2**63)]


@pytest.mark.parametrize(
    ("datatype", "shape", "value", "problem"),
    [
        ("INT32", [1], [1.5], "expected whole numbers, got numbers with fractions"),
        ("INT32", [1], [True], "expected whole numbers, got booleans"),
        ("INT8", [2], [1, 128], "expected numbers from -128 to 127, got one out of this range"),
        ("UINT8", [1], [-1], "expected numbers from 0 to 255"),
        ("INT64", [2], [1, 2**63], "expected numbers from -9223372036854775808 to 9223372036854775807, got one out"),
        ("FP16", [1], [65520], "expected numbers from -65504.0 to 65504.0, got one out of this range"),
        ("FP32", [2], [1e39, float("inf")], "got one out of this range"),
        ("UINT64", [1], [2**64], "out of its range|values of several types"),
        ("FP32", [1], ["1"], "expected numbers, got strings"),
        ("FP32", [1], [None], "expected numbers, got values of several types"),
        ("BOOL", [1], [1], "expected true or false, got whole numbers"),
        ("BYTES", [1], [1], "expected strings, got int"),
        ("BYTES", [2], [["a"], ["b", "c"]], "expected strings, got list"),
        ("FP32", [3], [1, 2], r"expected 3 elements for shape \[3\], got 2"),
        ("FP32", [1, 2], [[1], [2]], r"expected a flat list, or one nested as \[1, 2\], got one of \[2, 1\]"),
        ("FP32", [3], [[1, 2], [3]], "expected lists of equal lengths"),
    ],
)
def test_json_that_does_not_fit_is_named(datatype: str, shape: list[int], value: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        from_json(datatype, shape, value)


@pytest.mark.parametrize("datatype", datatypes.DATATYPES)
def test_a_tensor_without_elements_is_one(datatype: str) -> None:
    assert from_bytes(datatype, [0, 3], b"", 0, 0).shape == (0, 3)
    empty = from_json(datatype, [0, 3], [])
    assert empty.shape == (0, 3)
    assert _wire(datatype, empty) == b""
    assert to_json(datatype, empty) == []


def test_answers_may_be_lists_arrays_and_torch_tensors() -> None:
    assert from_answer("FP32", [[1.5, 2]]).dtype == np.float32
    assert from_answer("INT64", torch.tensor([1, 2])).tolist() == [1, 2]
    assert from_answer("FP16", torch.tensor([0.5])).dtype == np.float16
    assert from_answer("BYTES", [["a", b"b"]]).tolist() == [[b"a", b"b"]]
    with pytest.raises(ValueError, match="expected INT32, got float64"):
        from_answer("INT32", [1.5])
    with pytest.raises(ValueError, match="expected text or bytes, got int"):
        from_answer("BYTES", [1])
