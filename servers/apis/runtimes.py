"""A torch model in another runtime: exported to ONNX once, then run by ONNX Runtime or OpenVINO on the CPU.

An export is kept by what it depends on: weights, configuration, and the versions of what writes it. It appears whole or
not at all, and one that was cut later is made anew. Whether it answers rightly is for the proof (`equality`) to say.
"""

import contextlib
import fcntl
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

PACKAGES = {
    "onnxruntime": ("onnxruntime", "onnx", "onnxscript"),
    "openvino": ("openvino", "onnx", "onnxscript"),
}
"""What to install for each runtime, by the names of modules, which are those of the packages."""
_MODEL = "model.onnx"
_MANIFEST = "export.json"
_FORMAT = "1"  # of the exports; count it up where the code below exports otherwise

Run = Callable[..., "Tensor"]


def problem(runtime: str) -> str | None:
    """Why this runtime cannot be used here; None if it can."""
    missing = [name for name in PACKAGES.get(runtime, ()) if find_spec(name) is None]
    return f"{runtime} is not installed; pip install {' '.join(missing)} (or `make runtimes`)" if missing else None


def load(
    runtime: str,
    precision: str,
    device: str,
    module: "nn.Module",
    inputs: "Mapping[str, Tensor]",
    output: str | None,
    model_dir: Path,
    exports: str | None,
) -> Run:
    """A function of the tensors of `inputs` (in their order) to the output of `module`, computed by the runtime.

    `inputs` are examples, with two rows; the number of rows may be another later, and so may the second dimension of an
    input that has no third. `output` is the attribute of the module's answer, None for the answer itself. `exports` is
    the folder of kept exports, None for one that passes. Raises UserError where the runtime cannot run.
    """
    if reason := problem(runtime):
        raise UserError(f"runtime: {reason}")
    if not device.startswith("cpu"):
        raise UserError(f"runtime: {runtime} computes on the CPU here, got the device {device}; set accelerator: cpu")
    with contextlib.ExitStack() as stack:
        root = Path(exports or stack.enter_context(tempfile.TemporaryDirectory()))
        file = keep(root, _key(model_dir), lambda file: _export(module, inputs, output, file))
        return (_onnxruntime if runtime == "onnxruntime" else _openvino)(file, precision, list(inputs))


def keep(root: Path, key: str, write: Callable[[Path], None]) -> Path:
    """The model file of the export `key` below `root`, which `write` makes (with more files beside it) if need be.

    Processes that want the same export wait for the first of them.
    """
    root.mkdir(parents=True, exist_ok=True)
    folder, part = root / key, root / f"{key}.part"
    with (root / f"{key}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _is_whole(folder):
            for rest in (folder, part):
                shutil.rmtree(rest, ignore_errors=True)
            part.mkdir()
            write(part / _MODEL)
            sizes = {file.name: file.stat().st_size for file in part.iterdir()}
            (part / _MANIFEST).write_text(json.dumps(sizes))
            part.rename(folder)
    return folder / _MODEL


def _is_whole(folder: Path) -> bool:
    try:
        sizes = json.loads((folder / _MANIFEST).read_text())
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False


def _key(model_dir: Path) -> str:
    digest = hashlib.sha256()
    for name in ("torch", "transformers", "onnx", "onnxscript"):
        digest.update(f"{name} {version(name)}\n".encode())
    digest.update(_FORMAT.encode())
    for file in sorted(model_dir.iterdir()):
        if file.suffix in {".safetensors", ".bin"} or file.name == "config.json":
            with file.open("rb") as content:
                digest.update(hashlib.file_digest(content, "sha256").digest())
    return f"{model_dir.name}-{digest.hexdigest()[:16]}"


def _export(module: "nn.Module", inputs: "Mapping[str, Tensor]", output: str | None, file: Path) -> None:
    import torch

    names = list(inputs)

    class Named(torch.nn.Module):
        """Takes the inputs by their place, as an export does, and answers with one tensor."""

        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, *tensors: torch.Tensor) -> Any:
            if output is None:
                return self.module(*tensors)
            return getattr(self.module(**dict(zip(names, tensors, strict=True))), output)

    # Of pictures the height and width are fixed; of token ids the length is not.
    dynamic = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    shapes = tuple(dynamic if tensor.dim() == 2 else {0: torch.export.Dim.DYNAMIC} for tensor in inputs.values())
    with torch.inference_mode():
        torch.onnx.export(
            Named().eval(),
            tuple(inputs.values()),
            str(file),
            dynamo=True,
            dynamic_shapes=(shapes,),
            input_names=names,
            output_names=["output"],
            verbose=False,
        )


def _onnxruntime(file: Path, _precision: str, names: list[str]) -> Run:
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()  # this process's share of the cores
    options.inter_op_num_threads = 1
    # Threads that spin between two requests take the cores from whatever else runs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    def run(*tensors: "Tensor") -> "Tensor":
        values = {name: tensor.numpy() for name, tensor in zip(names, tensors, strict=True)}
        return torch.from_numpy(session.run(None, values)[0])

    return run


def _openvino(file: Path, precision: str, names: list[str]) -> Run:
    import openvino
    import torch

    # Without the hint it takes bfloat16 by itself where the processor has it.
    options = {
        "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[precision],
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    model = openvino.Core().compile_model(str(file), "CPU", options)

    def run(*tensors: "Tensor") -> "Tensor":
        values = {name: tensor.numpy() for name, tensor in zip(names, tensors, strict=True)}
        return torch.from_numpy(model(values)[0].copy())

    return run
