"""The answer to an inference request, to the byte."""

import json
import struct
from typing import Any

import pytest
import torch

from servers.engines.litserve.host.encode import EncodeError
from servers.engines.litserve.host.tensors.answer import answer
from servers.engines.litserve.host.tensors.declaration import Tensor
from servers.engines.litserve.host.tensors.request import InferenceRequest, RequestedOutput

Y, Z = Tensor("y", "FP32", (-1, 2)), Tensor("z", "BYTES", (-1,))


def _answer(value: Any, **outputs: bool) -> tuple[bytes, dict[str, str]]:
    requested = [RequestedOutput({"y": Y, "z": Z}[name], is_binary) for name, is_binary in outputs.items()]
    body, headers = answer(value, InferenceRequest({}, requested, "r"), "m")
    return body, dict(headers)


def test_json_has_the_elements_in_a_flat_list() -> None:
    body, headers = _answer({"y": [[1, 2], [3, 4]], "z": ["é"], "more": 1}, y=False, z=False)
    assert headers == {"content-type": "application/json"}
    assert body.decode() == (
        '{"id":"r","model_name":"m","model_version":"1","outputs":['
        '{"name":"y","datatype":"FP32","shape":[2,2],"data":[1.0,2.0,3.0,4.0]},'
        '{"name":"z","datatype":"BYTES","shape":[1],"data":["é"]}]}'
    )


def test_binary_outputs_follow_the_header_in_their_order() -> None:
    body, headers = _answer({"y": torch.tensor([[1.0, 2.0]]), "z": [b"\xff"]}, z=True, y=True)
    size = int(headers["inference-header-content-length"])
    assert headers["content-type"] == "application/octet-stream"
    outputs = json.loads(body[:size])["outputs"]
    assert [(output["name"], output["parameters"]["binary_data_size"]) for output in outputs] == [("z", 5), ("y", 8)]
    assert body[size:] == b"\1\0\0\0\xff" + struct.pack("<2f", 1, 2)


def test_an_answer_may_be_binary_in_part_and_have_nan() -> None:
    body, headers = _answer({"y": [[float("nan"), 1]], "z": ["a"]}, y=False, z=True)
    size = int(headers["inference-header-content-length"])
    assert b'"data":[NaN,1.0]' in body[:size]
    assert body[size:] == b"\1\0\0\0a"


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ([1], "encode_response: expected a dict with the outputs 'y', 'z', got list"),
        ({"y": [[1, 2]]}, "encode_response: expected a dict with the outputs 'y', 'z'; 'z' is missing"),
        ({"y": [1, 2], "z": []}, r"encode_response: y: expected shape \[-1, 2\], got \[2\]"),
        ({"y": [["a", "b"]], "z": []}, "encode_response: y: expected FP32, got <U1"),
        ({"y": [[1, 2]], "z": [b"\xff"]}, "output 'z': bytes that are no UTF-8 can be had as binary data only"),
    ],
)
def test_an_answer_of_the_api_that_lacks_the_outputs_is_named(value: Any, problem: str) -> None:
    with pytest.raises(EncodeError, match=problem):
        _answer(value, y=False, z=False)
