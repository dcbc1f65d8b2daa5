"""A torch module computed by another runtime: exported to ONNX, then run by ONNX Runtime or OpenVINO on the CPU.

The module stays the object that its API holds; only its `forward` is replaced, so that whatever calls it, such as a
transformers pipeline, notices nothing. Whether it still answers rightly is for the proof to say.
"""

import inspect
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.errors import UserError
from servers.apis import exports, session_options
from servers.apis.equality import Variant

if TYPE_CHECKING:
    from torch import Tensor, nn

PACKAGES = {
    "onnxruntime": ("onnxruntime", "onnx", "onnxscript"),
    "openvino": ("openvino", "onnx", "onnxscript"),
}
"""What to install for each runtime, by the names of modules, which are those of the packages."""
PRECISIONS = {"onnxruntime": ("float32",), "openvino": ("float32", "bfloat16", "float16")}
"""What each may compute in on a CPU; OpenVINO says of the processor which (`_openvino`)."""
NO_FLOAT16 = "in torch it is for a GPU: on a CPU it is slower than float32 where the processor does not compute it"

_Session = Callable[[Mapping[str, Any]], Sequence[Any]]


def problem(runtime: str) -> str | None:
    """Why this runtime cannot be used here; None if it can."""
    missing = [name for name in PACKAGES.get(runtime, ()) if find_spec(name) is None]
    return f"{runtime} is not installed; pip install {' '.join(missing)} (or `make runtimes`)" if missing else None


def usable(precision: str) -> list[str]:
    """The runtimes that are installed here and compute in this precision."""
    return [name for name in PACKAGES if precision in PRECISIONS[name] and problem(name) is None]


def prepare(
    variant: Variant, module: "nn.Module", inputs: "Mapping[str, Tensor]", device: str, name: str = "0"
) -> "Replacement":
    """What lets the variant's runtime compute the module. `name` tells the modules of a model apart.

    Raises UserError where the runtime cannot run, and whatever an export or a runtime raises.
    """
    if reason := problem(variant.runtime):
        raise UserError(f"runtime: {reason}")
    if not device.startswith("cpu"):
        raise UserError(
            f"runtime: {variant.runtime} computes on the CPU here, got the device {device}; set accelerator: cpu"
        )
    open_session = _onnxruntime if variant.runtime == "onnxruntime" else _openvino
    with tempfile.TemporaryDirectory() as passing:

        def make_session() -> _Session:
            file = exports.export(Path(variant.exports or passing), name, module, inputs)
            return open_session(file, variant)

        return Replacement(module, inputs, make_session)


class Replacement:
    """A module whose `forward` a runtime computes between `enable` and `undo`.

    `inputs` are examples of its tensors by the names of its parameters, with two rows; the number of rows may be
    another later, and so may the length of token ids (`exports.dynamic_dimensions`). The module is called and answers
    as before, except that of its answer only tensors are there.
    """

    def __init__(
        self, module: "nn.Module", inputs: "Mapping[str, Tensor]", make_session: Callable[[], _Session]
    ) -> None:
        import torch

        self._module = module
        self._signature = inspect.signature(module.forward)
        self._names = list(inputs)
        with torch.inference_mode():
            answer = module(**inputs)
        self._kind: Any = type(answer)
        self._outputs, _ = exports.flatten(answer)
        self._session = make_session()

    def enable(self) -> None:
        """Let the runtime compute the module."""
        self._module.forward = self._forward

    def undo(self) -> None:
        """Let torch compute the module again."""
        del self._module.forward

    def release(self) -> None:
        """Give the memory of torch's own weights back; there is no `undo` after that."""
        import torch

        for tensor in (*self._module.parameters(), *self._module.buffers()):
            tensor.data = torch.empty(0, dtype=tensor.dtype)

    def _forward(self, *args: Any, **options: Any) -> Any:
        import torch

        tensors = tensors_of(self._signature, args, options)
        if tensors.keys() != set(self._names):
            raise TypeError(f"it was exported with the inputs {self._names}, and called with {list(tensors)}")
        values = [torch.from_numpy(value) for value in self._session(_arrays(tensors))]
        if not self._outputs:
            return values[0]
        if issubclass(self._kind, Mapping):
            return self._kind(**dict(zip(self._outputs, values, strict=True)))
        return tuple(values)


def tensors_of(signature: inspect.Signature, args: Sequence[Any], options: Mapping[str, Any]) -> "dict[str, Tensor]":
    """The tensors of a call of this signature, by the names of its parameters."""
    import torch

    arguments = signature.bind(*args, **options).arguments
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            arguments.update(arguments.pop(name, {}))
    return {name: value for name, value in arguments.items() if isinstance(value, torch.Tensor)}


def refuse_precision(variant: Variant, device: str) -> None:
    """Raise RuntimeError for what torch should not compute on this device, which counts as a failed proof."""
    if (variant.runtime, variant.precision) == ("eager", "float16") and device.startswith("cpu"):
        raise RuntimeError(NO_FLOAT16)


def _arrays(tensors: "Mapping[str, Tensor]") -> Mapping[str, Any]:
    return {name: tensor.detach().contiguous().numpy() for name, tensor in tensors.items()}


def _onnxruntime(file: Path, variant: Variant) -> _Session:
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    for name, value in variant.options.items():
        session_options.set_onnxruntime(options, name, value)
    options.intra_op_num_threads = torch.get_num_threads()  # this process's share of the cores
    options.inter_op_num_threads = 1
    # Threads that spin between two requests take the cores from whatever else runs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return lambda values: session.run(None, values)


def _openvino(file: Path, variant: Variant) -> _Session:
    import openvino
    import torch

    # Without the hint it takes bfloat16 by itself where the processor has it; with one that the processor does not
    # compute, another type.
    kind = getattr(openvino.Type, {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}[variant.precision])
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        # It pins its threads to cores, and each worker's to the same first ones: two workers had one core together.
        "ENABLE_CPU_PINNING": False,
        **variant.options,
        "INFERENCE_PRECISION_HINT": kind,
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    model = openvino.Core().compile_model(str(file), "CPU", options)
    if (actual := model.get_property("INFERENCE_PRECISION_HINT")) != kind:
        name = actual.get_type_name()
        raise RuntimeError(f"on this processor it computes in {name} where {variant.precision} is asked for")

    def run(values: Mapping[str, Any]) -> Sequence[Any]:
        # With one thread it says nothing of a node that fails, such as an index beyond its table, and leaves the
        # outputs as they are: empty in a request of its own, in one that was used before the answer to that.
        answer = model.create_infer_request().infer(dict(values))
        outputs = [answer[index] for index in range(len(answer))]
        if not all(output.size for output in outputs):
            raise RuntimeError("openvino computed no answer: a node failed, as with an index beyond its table")
        return outputs

    return run
