"""An inference request of the Open Inference Protocol: a JSON header, and the bytes of binary tensors behind it.

Without the field `Inference-Header-Content-Length` the whole body is JSON. NaN and infinities may stand bare in it, as
Triton's clients write them. Messages name the field, what came and what was expected, near Triton's own words.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from servers.engines.litserve.host.failure import RefusalError
from servers.engines.litserve.host.tensors import datatypes
from servers.engines.litserve.host.tensors.datatypes import Array
from servers.engines.litserve.host.tensors.declaration import Declaration, Tensor

LENGTH_HEADER = "inference-header-content-length"
_SIZE = re.compile("[0-9]{1,15}")
_HALF_PAIR = re.compile("[\ud800-\udfff]")
_OUTPUT_PARAMETER = "binary_data_output"


@dataclass(frozen=True)
class RequestedOutput:
    """An output that the answer has, as bytes or in the JSON."""

    tensor: Tensor
    is_binary: bool


@dataclass(frozen=True)
class InferenceRequest:
    """The tensors by name, the parameters for the API, and what the answer has."""

    tensors: Mapping[str, Array]
    outputs: Sequence[RequestedOutput]
    id: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)


def parse(body: bytes, length: str | None, declaration: Declaration, model: str) -> InferenceRequest:
    """The request to `model`; `length` is the value of the header. Raises RefusalError 400."""
    size = _header_size(body, length)
    document = _document(body[:size])
    request_id = document.get("id")
    if request_id is not None and not isinstance(request_id, str):
        raise _refusal(f"id: expected a string, got {_kind(request_id)}")
    if request_id is not None and _HALF_PAIR.search(request_id):
        raise _refusal("id: expected text, got half of a surrogate pair")
    parameters = _parameters(document, "parameters")
    are_binary = _flag(parameters, _OUTPUT_PARAMETER, "parameters")
    options = {name: value for name, value in parameters.items() if name != _OUTPUT_PARAMETER}
    for name in options:
        if name not in declaration.parameters:
            names = ", ".join((_OUTPUT_PARAMETER, *declaration.parameters))
            raise _refusal(f"parameters: unexpected parameter {_quote(name)} for model '{model}'; it takes {names}")
    tensors = _inputs(document.get("inputs"), body, size, declaration, model)
    outputs = tuple(_outputs(document.get("outputs"), are_binary, declaration, model))
    return InferenceRequest(tensors, outputs, request_id, options)


def _header_size(body: bytes, length: str | None) -> int:
    if length is None:
        return len(body)
    if not _SIZE.fullmatch(length) or not 0 < int(length) <= len(body):
        raise _refusal(
            f"Inference-Header-Content-Length: expected the size of the JSON, at most the {len(body)} bytes of the "
            f"body, got {_quote(length)}"
        )
    return int(length)


def _document(text: bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(text.decode())
    except (ValueError, RecursionError) as problem:
        raise _refusal(f"failed to parse the request JSON: {problem}") from None
    if not isinstance(document, dict):
        raise _refusal(f"failed to parse the request JSON: expected an object, got {_kind(document)}")
    return document


def _inputs(entries: Any, body: bytes, offset: int, declaration: Declaration, model: str) -> dict[str, Array]:
    if not isinstance(entries, list):
        raise _refusal(f"inputs: expected a list of tensors, got {_kind(entries)}")
    by_name = {tensor.name: tensor for tensor in declaration.inputs}
    tensors: dict[str, Array] = {}
    for index, entry in enumerate(entries):
        tensor = _lookup(entry, f"inputs[{index}]", by_name, "input", model)
        if tensor.name in tensors:
            raise _refusal(f"input '{tensor.name}' is there twice")
        shape = _check_type(entry, tensor, model)
        size = _binary_size(entry, tensor)
        if size is None:
            tensors[tensor.name] = _from_json(entry, tensor, shape)
        else:
            tensors[tensor.name] = _from_bytes(body, offset, size, tensor, shape)
            offset += size
    if missing := [name for name in by_name if name not in tensors]:
        names = ", ".join(f"'{name}'" for name in missing)
        raise _refusal(f"expected {len(by_name)} inputs but got {len(tensors)} for model '{model}': missing {names}")
    if offset < len(body):
        raise _refusal(f"unexpected additional input data for model '{model}': {len(body) - offset} bytes are left")
    return tensors


def _check_type(entry: Mapping[str, Any], tensor: Tensor, model: str) -> Sequence[int]:
    datatype, shape = entry.get("datatype"), entry.get("shape")
    if datatype != tensor.datatype:
        actual = _quote(datatype) if isinstance(datatype, str) else _kind(datatype)
        raise _refusal(
            f"inference input '{tensor.name}' data-type is {actual}, but model '{model}' expects '{tensor.datatype}'"
        )
    if not isinstance(shape, list) or not all(type(size) is int and 0 <= size < 2**63 for size in shape):
        raise _refusal(f"input '{tensor.name}': shape: expected a list of sizes from 0 on, got {_sizes(shape)}")
    if not tensor.takes(shape):
        raise _refusal(
            f"unexpected shape for input '{tensor.name}' for model '{model}': expected {_shape(tensor.shape)}, "
            f"got {_shape(shape)}"
        )
    return shape


def _binary_size(entry: Mapping[str, Any], tensor: Tensor) -> int | None:
    """How many bytes of the body the tensor has; None when its data is in the JSON."""
    where = f"input '{tensor.name}'"
    parameters = _parameters(entry, f"{where}: parameters")
    if name := next((name for name in parameters if name.startswith("shared_memory")), None):
        raise _refusal(f"{where}: parameters.{name}: shared memory is not offered here; send the data")
    size = parameters.get("binary_data_size")
    if size is None:
        return None
    if type(size) is not int or size < 0:
        raise _refusal(f"{where}: binary_data_size: expected a number of bytes, got {_kind(size)}")
    if "data" in entry:
        raise _refusal(f"{where}: expected either data or binary_data_size, got both")
    return size


def _from_json(entry: Mapping[str, Any], tensor: Tensor, shape: Sequence[int]) -> Array:
    where = f"input '{tensor.name}'"
    data = entry.get("data")
    if not isinstance(data, list):
        raise _refusal(f"{where}: data: expected a list, or binary_data_size in its parameters, got {_kind(data)}")
    try:
        return datatypes.from_json(tensor.datatype, shape, data)
    except (ValueError, RecursionError) as problem:
        raise _refusal(f"{where}: data: {problem}") from None


def _from_bytes(body: bytes, offset: int, size: int, tensor: Tensor, shape: Sequence[int]) -> Array:
    where = f"input '{tensor.name}'"
    remaining = len(body) - offset
    if size > remaining:
        raise _refusal(f"{where}: binary_data_size: expected at most the {remaining} bytes that remain, got {size}")
    expected = datatypes.byte_size(tensor.datatype, shape)
    if expected is not None and size != expected:
        raise _refusal(
            f"unexpected total byte size {size} for {where}, expecting {expected} for shape {_shape(shape)} of "
            f"{tensor.datatype}"
        )
    try:
        return datatypes.from_bytes(tensor.datatype, shape, body, offset, size)
    except ValueError as problem:
        raise _refusal(f"{where}: {problem}") from None


def _outputs(entries: Any, are_binary: bool, declaration: Declaration, model: str) -> Iterable[RequestedOutput]:
    if not entries and (entries is None or entries == []):
        yield from (RequestedOutput(tensor, are_binary) for tensor in declaration.outputs)
        return
    if not isinstance(entries, list):
        raise _refusal(f"outputs: expected a list of outputs, got {_kind(entries)}")
    by_name = {tensor.name: tensor for tensor in declaration.outputs}
    for index, entry in enumerate(entries):
        tensor = _lookup(entry, f"outputs[{index}]", by_name, "output", model)
        where = f"output '{tensor.name}'"
        parameters = _parameters(entry, f"{where}: parameters")
        if parameters.get("classification"):
            raise _refusal(f"{where}: parameters.classification: this extension is not offered here; send it without")
        if name := next((name for name in parameters if name.startswith("shared_memory")), None):
            raise _refusal(f"{where}: parameters.{name}: shared memory is not offered here")
        is_binary = _flag(parameters, "binary_data", where) if "binary_data" in parameters else are_binary
        yield RequestedOutput(tensor, is_binary)


def _lookup(entry: Any, where: str, by_name: Mapping[str, Tensor], side: str, model: str) -> Tensor:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise _refusal(f"{where}: expected an object with a name, got {_kind(entry)}")
    tensor = by_name.get(entry["name"])
    if tensor is None:
        names = ", ".join(f"'{name}'" for name in by_name)
        raise _refusal(f"unexpected inference {side} {_quote(entry['name'])} for model '{model}'; it has {names}")
    return tensor


def _parameters(holder: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    parameters = holder.get("parameters")
    if parameters is not None and not isinstance(parameters, dict):
        raise _refusal(f"{where}: expected an object, got {_kind(parameters)}")
    return parameters or {}


def _flag(parameters: Mapping[str, Any], name: str, where: str) -> bool:
    value = parameters.get(name, False)
    if not isinstance(value, bool):
        raise _refusal(f"{where}: {name}: expected true or false, got {_kind(value)}")
    return value


def _kind(value: Any) -> str:
    """A value of the request without its text, which may be the content of a request."""
    if value is None:
        return "nothing"
    if type(value) in (int, float):
        return _quote(str(value)).strip("'")
    return {bool: "a boolean", str: "a string", list: "a list", dict: "an object"}[type(value)]


def _sizes(shape: Any) -> str:
    """A shape as it came, where it has numbers only."""
    is_short = isinstance(shape, list) and 0 < len(shape) <= 16 and all(type(size) is int for size in shape)
    return f"[{', '.join(_kind(size) for size in shape)}]" if is_short else _kind(shape)


def _quote(text: str) -> str:
    return ascii(text if len(text) <= 64 else f"{text[:61]}...")


def _shape(shape: Sequence[int]) -> str:
    return f"[{','.join(map(str, shape))}]"


def _refusal(message: str) -> RefusalError:
    return RefusalError(400, message)
