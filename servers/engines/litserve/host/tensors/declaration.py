"""The tensors that a LitAPI declares: names, datatypes and shapes of its inputs and outputs.

The attribute `tensors` is a dict with `inputs` and `outputs`, lists of {"name", "datatype", "shape"}, and `parameters`,
the names of the request parameters that the API takes. A dimension of -1 may have any size.
"""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, get_origin

from pydantic import BaseModel

from configs.errors import UserError
from servers.engines.litserve.host.tensors.datatypes import DATATYPES


@dataclass(frozen=True)
class Tensor:
    """One input or output; -1 in the shape stands for any size."""

    name: str
    datatype: str
    shape: Sequence[int]

    def takes(self, shape: Sequence[int]) -> bool:
        """Whether a tensor of this shape is one."""
        return len(shape) == len(self.shape) and all(
            expected in (-1, size) for expected, size in zip(self.shape, shape, strict=True)
        )


@dataclass(frozen=True)
class Declaration:
    """The tensors of one API; `parameters` are the names that `decode_tensors` knows."""

    inputs: Sequence[Tensor]
    outputs: Sequence[Tensor]
    parameters: Sequence[str] = ()

    def document(self) -> dict[str, Any]:
        """The inputs and outputs as JSON, for the card."""
        return {
            "inputs": [asdict(tensor) for tensor in self.inputs],
            "outputs": [asdict(tensor) for tensor in self.outputs],
        }


def declaration_of(api: Any, name: str) -> Declaration | None:
    """What the API called `name` declares; None for one without tensors. Raises UserError for a wrong declaration.

    An attribute of that name that is no dict with inputs or outputs is the API's own affair.
    """
    value = getattr(api, "tensors", None)
    if not isinstance(value, Mapping) or not value.keys() & {"inputs", "outputs"}:
        return None
    where = f"api {name!r}: tensors"
    if unknown := value.keys() - {"inputs", "outputs", "parameters"}:
        raise UserError(f"{where}: expected inputs, outputs and parameters, got {', '.join(sorted(map(str, unknown)))}")
    parameters = value.get("parameters", ())
    if not isinstance(parameters, list | tuple) or not all(isinstance(entry, str) for entry in parameters):
        raise UserError(f"{where}.parameters: expected a list of names, got {parameters!r}")
    inputs, outputs = (tuple(_tensors(value.get(side), f"{where}.{side}")) for side in ("inputs", "outputs"))
    if api.stream:
        raise UserError(f"{where}: a model that streams cannot answer with tensors; remove `tensors` or `stream`")
    if not callable(getattr(api, "decode_tensors", None)):
        _check_plain(api, where, parameters)
    return Declaration(inputs, outputs, tuple(parameters))


def _check_plain(api: Any, where: str, parameters: Sequence[str]) -> None:
    """Without decode_tensors, decode_request itself gets the tensors."""
    if parameters:
        raise UserError(f"{where}.parameters: expected a method decode_tensors(tensors, parameters) that takes them")
    annotation = inspect.signature(api.decode_request).parameters["request"].annotation
    if get_origin(annotation) is Annotated or (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        raise UserError(
            f"{where}: decode_request takes a request of a type of its own, and would get a dict of arrays; add a "
            "method decode_tensors(tensors, parameters) that returns such a request"
        )


def _tensors(value: Any, where: str) -> Iterable[Tensor]:
    if not isinstance(value, list | tuple) or not value:
        raise UserError(f"{where}: expected a list of tensors, got {value!r}")
    names = set()
    for index, entry in enumerate(value):
        place = f"{where}[{index}]"
        if not isinstance(entry, Mapping) or entry.keys() != {"name", "datatype", "shape"}:
            raise UserError(f"{place}: expected name, datatype and shape, got {entry!r}")
        name, datatype, shape = entry["name"], entry["datatype"], entry["shape"]
        if not isinstance(name, str) or not name or name in names:
            raise UserError(f"{place}.name: expected a name of its own, got {name!r}")
        if datatype not in DATATYPES:
            raise UserError(f"{place}.datatype: expected one of {', '.join(DATATYPES)}, got {datatype!r}")
        if not isinstance(shape, list | tuple) or not all(type(size) is int and size >= -1 for size in shape):
            raise UserError(f"{place}.shape: expected a list of sizes, -1 for any, got {shape!r}")
        names.add(name)
        yield Tensor(name, datatype, tuple(shape))
