"""An inference request is read to the byte, and what is wrong in one is named."""

import json
import math
import struct
from typing import Any

import pytest

from servers.engines.litserve.host.failure import RefusalError
from servers.engines.litserve.host.tensors.declaration import Declaration, Tensor
from servers.engines.litserve.host.tensors.request import InferenceRequest, parse

DECLARATION = Declaration(
    (Tensor("x", "FP32", (-1, 2)), Tensor("names", "BYTES", (-1,))),
    (Tensor("y", "FP32", (-1,)), Tensor("z", "BYTES", (-1,))),
    ("top_k",),
)
X = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}
NAMES = {"name": "names", "datatype": "BYTES", "shape": [1], "data": ["a"]}
BINARY_X = {"name": "x", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}}
EIGHT = struct.pack("<2f", 1, 2)


def _read(document: Any, binary: bytes = b"", length: str | None = None) -> InferenceRequest:
    header = document if isinstance(document, bytes) else json.dumps(document).encode()
    if length is None and binary:
        length = str(len(header))
    return parse(header + binary, length, DECLARATION, "m")


def test_tensors_of_one_request_may_be_json_and_binary() -> None:
    request = _read({"id": "r", "inputs": [NAMES, BINARY_X], "parameters": {"top_k": 3}}, EIGHT)
    assert request.tensors["x"].tolist() == [[1, 2]]
    assert request.tensors["names"].tolist() == [b"a"]
    assert (request.id, request.parameters) == ("r", {"top_k": 3})
    assert [(output.tensor.name, output.is_binary) for output in request.outputs] == [("y", False), ("z", False)]


def test_binary_tensors_come_in_the_order_of_the_inputs() -> None:
    names = {**NAMES, "data": None, "parameters": {"binary_data_size": 5}}
    del names["data"]
    request = _read({"inputs": [names, BINARY_X]}, b"\1\0\0\0b" + EIGHT)
    assert request.tensors["names"].tolist() == [b"b"]
    assert request.tensors["x"].tolist() == [[1, 2]]


def test_nan_and_infinities_may_stand_bare() -> None:
    request = _read(
        b'{"inputs": [' + json.dumps({**X, "data": [math.nan, -math.inf]}).encode() + b", " + _NAMES + b"]}"
    )
    assert str(request.tensors["x"].tolist()) == "[[nan, -inf]]"


_NAMES = json.dumps(NAMES).encode()


def test_outputs_are_those_that_are_asked_for_and_in_their_form() -> None:
    outputs = [{"name": "z", "parameters": {"binary_data": False}}, {"name": "y"}]
    request = _read({"inputs": [X, NAMES], "outputs": outputs, "parameters": {"binary_data_output": True}})
    assert [(output.tensor.name, output.is_binary) for output in request.outputs] == [("z", False), ("y", True)]


def _with(**changes: Any) -> dict[str, Any]:
    return {"inputs": [X, NAMES], **changes}


def _x(**changes: Any) -> dict[str, Any]:
    return {"inputs": [{key: value for key, value in {**X, **changes}.items() if value is not ...}, NAMES]}


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        (b"{", "failed to parse the request JSON: Expecting"),
        (b"\xff", "failed to parse the request JSON: 'utf-8'"),
        (b"[]", "failed to parse the request JSON: expected an object, got a list"),
        ({}, "inputs: expected a list of tensors, got nothing"),
        ({"inputs": ["x"]}, r"inputs\[0\]: expected an object with a name, got a string"),
        (_with(id=7), "id: expected a string, got 7"),
        (_with(id="\ud800"), "id: expected text, got half of a surrogate pair"),
        (_with(inputs=[X]), "expected 2 inputs but got 1 for model 'm': missing 'names'"),
        (_with(inputs=[X, X]), "input 'x' is there twice"),
        (_x(name="q"), "unexpected inference input 'q' for model 'm'; it has 'x', 'names'"),
        (_x(datatype="FP64"), "inference input 'x' data-type is 'FP64', but model 'm' expects 'FP32'"),
        (_x(datatype=...), "inference input 'x' data-type is nothing, but model 'm' expects 'FP32'"),
        (_x(shape=[2]), r"unexpected shape for input 'x' for model 'm': expected \[-1,2\], got \[2\]"),
        (_x(shape=[-1, 2]), r"input 'x': shape: expected a list of sizes from 0 on, got \[-1, 2\]"),
        (_x(shape=...), "input 'x': shape: expected a list of sizes from 0 on, got nothing"),
        (_x(data=...), "input 'x': data: expected a list, or binary_data_size in its parameters, got nothing"),
        (_x(data=[1, 2, 3]), r"input 'x': data: expected 2 elements for shape \[1, 2\], got 3"),
        (_x(data=["1", "2"]), "input 'x': data: expected numbers, got strings"),
        (_x(parameters=7), "input 'x': parameters: expected an object, got 7"),
        (_x(parameters={"binary_data_size": 8}), "input 'x': expected either data or binary_data_size, got both"),
        (
            _x(parameters={"binary_data_size": -1}, data=...),
            "binary_data_size: expected a number of bytes, got -1",
        ),
        (_x(parameters={"binary_data_size": -(10**400)}, data=...), r"expected a number of bytes, got -10{59}\.\.\."),
        (_x(parameters={"shared_memory_region": "r"}), "parameters.shared_memory_region: shared memory is not offered"),
        (
            _with(parameters={"priority": 1}),
            "unexpected parameter 'priority' for model 'm'; it takes binary_data_output, top",
        ),
        (
            _with(parameters={"binary_data_output": 1}),
            "parameters: binary_data_output: expected true or false, got 1",
        ),
        (_with(outputs=[{"name": "q"}]), "unexpected inference output 'q' for model 'm'; it has 'y', 'z'"),
        (_with(outputs={}), "outputs: expected a list of outputs, got an object"),
        (
            _with(outputs=[{"name": "y", "parameters": {"classification": 2}}]),
            "parameters.classification: this extension",
        ),
    ],
)
def test_what_is_wrong_is_named(document: Any, problem: str) -> None:
    with pytest.raises(RefusalError, match=problem) as refusal:
        _read(document)
    assert refusal.value.status_code == 400


@pytest.mark.parametrize(
    ("size", "binary", "problem"),
    [
        (8, EIGHT[:5], "input 'x': binary_data_size: expected at most the 5 bytes that remain, got 8"),
        (4, EIGHT, r"unexpected total byte size 4 for input 'x', expecting 8 for shape \[1,2\] of FP32"),
        (8, EIGHT + b"1", "unexpected additional input data for model 'm': 1 bytes are left"),
    ],
)
def test_a_binary_part_that_is_short_or_long_is_named(size: int, binary: bytes, problem: str) -> None:
    entry = {**BINARY_X, "parameters": {"binary_data_size": size}}
    with pytest.raises(RefusalError, match=problem):
        _read({"inputs": [NAMES, entry]}, binary)


@pytest.mark.parametrize("length", ["0", "-1", "x", "", "٣", "999", "9" * 5000, "1e2"])
def test_a_length_of_the_header_that_is_none_is_named(length: str) -> None:
    with pytest.raises(
        RefusalError, match="Inference-Header-Content-Length: expected the size of the JSON, at most the"
    ):
        _read({"inputs": [X, NAMES]}, b"", length)


@pytest.mark.parametrize("shift", [-1, 1])
def test_a_length_that_cuts_the_json_at_a_wrong_place_is_no_json(shift: int) -> None:
    header = json.dumps({"inputs": [NAMES, BINARY_X]}).encode()
    with pytest.raises(RefusalError, match="failed to parse the request JSON"):
        parse(header + EIGHT, str(len(header) + shift), DECLARATION, "m")
