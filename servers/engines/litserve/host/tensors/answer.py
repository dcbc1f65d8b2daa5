"""The answer to an inference request: a JSON header, and the bytes of the binary outputs behind it."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from servers.engines.litserve.host.encode import EncodeError
from servers.engines.litserve.host.tensors import datatypes
from servers.engines.litserve.host.tensors.request import LENGTH_HEADER, InferenceRequest, RequestedOutput

MODEL_VERSION = "1"
"""Of every model: what is served is what the settings name."""

# Bare NaN and infinities, which JSON does not have, are what Triton writes and its clients read.
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def answer(value: Any, request: InferenceRequest, model: str) -> tuple[bytes, Sequence[tuple[str, str]]]:
    """The body and its headers for what encode_response returned. Raises EncodeError where that lacks an output."""
    names = ", ".join(repr(output.tensor.name) for output in request.outputs)
    if not isinstance(value, Mapping):
        raise EncodeError(f"encode_response: expected a dict with the outputs {names}, got {type(value).__name__}")
    entries: list[dict[str, Any]] = []
    parts: list[Any] = []
    for output in request.outputs:
        if output.tensor.name not in value:
            raise EncodeError(
                f"encode_response: expected a dict with the outputs {names}; {output.tensor.name!r} is missing"
            )
        entries.append(_entry(output, value[output.tensor.name], parts))
    document: dict[str, Any] = {} if request.id is None else {"id": request.id}
    document |= {"model_name": model, "model_version": MODEL_VERSION, "outputs": entries}
    header = _encode(document).encode()
    if not any(output.is_binary for output in request.outputs):
        return header, (("content-type", "application/json"),)
    headers = (("content-type", "application/octet-stream"), (LENGTH_HEADER, str(len(header))))
    return b"".join((header, *parts)), headers


def _entry(output: RequestedOutput, value: Any, parts: list[Any]) -> dict[str, Any]:
    """The output's entry in the header; its bytes, if it is binary, go to `parts`."""
    tensor = output.tensor
    try:
        array = datatypes.from_answer(tensor.datatype, value)
        if not tensor.takes(array.shape):
            raise ValueError(f"expected shape {list(tensor.shape)}, got {list(array.shape)}")
        entry = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(array.shape)}
        if not output.is_binary:
            return entry | {"data": datatypes.to_json(tensor.datatype, array)}
    except UnicodeDecodeError:
        raise EncodeError(f"output {tensor.name!r}: bytes that are no UTF-8 can be had as binary data only") from None
    except ValueError as problem:
        raise EncodeError(f"encode_response: {tensor.name}: {problem}") from None
    part = datatypes.to_bytes(tensor.datatype, array)
    parts.append(part)
    size = len(part) if isinstance(part, bytes) else part.nbytes
    return entry | {"parameters": {"binary_data_size": size}}
