"""What a LitAPI may declare of its tensors, and what is said of a wrong declaration."""

from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel

from configs.errors import UserError
from servers.engines.litserve.host.tensors.declaration import Tensor, declaration_of

X = {"name": "x", "datatype": "FP32", "shape": [-1, 3]}
BOTH = {"inputs": [X], "outputs": [X]}


def _api(tensors: Any, **attributes: Any) -> Any:
    def decode_request(request: Any) -> Any:
        return request

    return SimpleNamespace(**{"tensors": tensors, "stream": False, "decode_request": decode_request, **attributes})


@pytest.mark.parametrize("value", [None, [], "text", {"of": "its own"}])
def test_an_attribute_of_another_form_is_the_apis_own(value: Any) -> None:
    assert declaration_of(_api(value), "mine") is None
    assert declaration_of(SimpleNamespace(stream=False), "mine") is None


def test_the_card_gets_names_datatypes_and_shapes() -> None:
    declaration = declaration_of(_api(BOTH), "mine")
    assert declaration is not None
    assert declaration.document() == {side: [{**X, "shape": (-1, 3)}] for side in ("inputs", "outputs")}


@pytest.mark.parametrize(
    ("shape", "fits"), [([0, 3], True), ([7, 3], True), ([7, 4], False), ([3], False), ([], False)]
)
def test_minus_one_stands_for_any_size(shape: list[int], fits: bool) -> None:
    assert Tensor("x", "FP32", (-1, 3)).takes(shape) is fits


@pytest.mark.parametrize(
    ("tensors", "attributes", "problem"),
    [
        ({"inputs": [X]}, {}, "tensors.outputs: expected a list of tensors, got None"),
        ({**BOTH, "input": []}, {}, "tensors: expected inputs, outputs and parameters, got input"),
        ({**BOTH, "inputs": [{"name": "x"}]}, {}, r"tensors.inputs\[0\]: expected name, datatype and shape"),
        ({**BOTH, "inputs": [X, X]}, {}, r"tensors.inputs\[1\].name: expected a name of its own, got 'x'"),
        ({**BOTH, "inputs": [{**X, "datatype": "float"}]}, {}, r"datatype: expected one of BOOL, .*, got 'float'"),
        ({**BOTH, "inputs": [{**X, "shape": [-2]}]}, {}, r"shape: expected a list of sizes, -1 for any, got \[-2\]"),
        ({**BOTH, "parameters": "k"}, {}, "tensors.parameters: expected a list of names, got 'k'"),
        ({**BOTH, "parameters": ["k"]}, {}, r"expected a method decode_tensors\(tensors, parameters\)"),
        (BOTH, {"stream": True}, "a model that streams cannot answer with tensors"),
    ],
)
def test_a_wrong_declaration_is_named(tensors: Any, attributes: dict[str, Any], problem: str) -> None:
    with pytest.raises(UserError, match=f"api 'mine': .*{problem}"):
        declaration_of(_api(tensors, **attributes), "mine")


def test_a_decode_request_of_a_type_of_its_own_needs_decode_tensors() -> None:
    def decode_request(request: BaseModel) -> BaseModel:
        return request

    with pytest.raises(UserError, match="add a method decode_tensors"):
        declaration_of(_api(BOTH, decode_request=decode_request), "mine")
    assert declaration_of(_api(BOTH, decode_request=decode_request, decode_tensors=print), "mine") is not None
