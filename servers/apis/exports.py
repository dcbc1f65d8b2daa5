"""Exports of torch modules to ONNX, kept by what they depend on.

An export appears whole or not at all, and one that was cut later is made anew. A process of its own makes it, since the
exporter takes several times the memory of the model; all of it is free afterwards.

`python -m servers.apis.exports JOB FILE PATH` is that process: it reads the module from the file JOB, writes the graph
FILE and its weights beside it, and imports from the folders PATH.
"""

import fcntl
import hashlib
import json
import logging
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from servers.processes.interpreter import module_argv
from servers.store import child

if TYPE_CHECKING:
    from torch import Tensor, nn

STEP = "litport: step: "
"""Begins a line of a model's process that names the step of its start, for the supervisor to show."""
_MODEL = "model.onnx"
_MANIFEST = "export.json"
_FORMAT = "3"  # of the exports; count it up where the code below exports otherwise
_WRITERS = ("torch", "transformers", "onnx", "onnxscript")
_log = logging.getLogger("litport.worker")


def exports_dir(cache_dir: Path, name: str) -> Path:
    """Where the exports of the model `name` are kept."""
    return cache_dir.expanduser() / "exports" / name.replace("/", "--")


def export(root: Path, name: str, module: "nn.Module", inputs: "Mapping[str, Tensor]") -> Path:
    """The graph of the module below `root`, made if need be; the `name` tells the modules of one model apart.

    The graph takes `inputs` by their names and has one output for each tensor of `flatten`. Raises ChildError where the
    export fails, OSError, and what pickling a module raises.
    """
    import torch

    def write(file: Path) -> None:
        sys.stderr.write(f"{STEP}exporting to ONNX, once\n")
        sys.stderr.flush()
        job = file.with_name("job.pt")
        torch.save((module, dict(inputs)), job)
        argv = module_argv("servers.apis.exports", str(job), str(file), os.pathsep.join(sys.path))
        child.run(argv, environment=os.environ, on_tick=lambda: None)
        job.unlink()

    return keep(root, f"{name}-{digest(module, inputs)}", write)


def keep(root: Path, key: str, write: Callable[[Path], None]) -> Path:
    """The model file of the export `key` below `root`, which `write` makes (with more files beside it) if need be.

    Processes that want the same export wait for the first of them. A new one takes the place of those with the same
    name in front of the digest.
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
            _remove_older(root, key)
    return folder / _MODEL


def digest(module: "nn.Module", inputs: "Mapping[str, Tensor]") -> str:
    """Of what an export depends on: weights, code and configuration of the module, its inputs, what exports it."""
    import torch

    total = hashlib.sha256(_FORMAT.encode())
    texts = [f"{name} {version(name)}" for name in _WRITERS]
    texts += [f"{name} {tensor.dtype} {tuple(tensor.shape)}" for name, tensor in inputs.items()]
    texts += [str(module), str(getattr(module, "config", ""))]
    texts += [f"{name}.{key} {value!r}" for name, part in module.named_modules() for key, value in _plain(part)]
    total.update("\n".join(texts).encode())
    files = {getattr(sys.modules.get(type(part).__module__), "__file__", None) for part in module.modules()}
    for file in sorted(file for file in files if file):
        total.update(Path(file).read_bytes())
    for name, tensor in sorted(module.state_dict().items()):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return total.hexdigest()[:16]


def _plain(module: "nn.Module") -> list[tuple[str, Any]]:
    """The module's own attributes, in order, whose values say all of themselves; it may compute with them."""
    import torch

    def is_plain(value: Any) -> bool:
        if isinstance(value, list | tuple):
            return all(map(is_plain, value))
        if isinstance(value, dict):
            return all(map(is_plain, [*value, *value.values()]))
        return value is None or type(value) in (bool, int, float, complex, str, bytes)

    # Where the weights came from says nothing of what they compute.
    names = vars(module).keys() - vars(torch.nn.Module()).keys() - {"name_or_path"}
    return [(name, vars(module)[name]) for name in sorted(names) if is_plain(vars(module)[name])]


def flatten(output: Any) -> "tuple[list[str], list[Tensor]]":
    """The tensors of what a module returns, with their names; one that is not in a mapping or sequence has no name.

    Raises TypeError where there is none.
    """
    import torch

    if isinstance(output, torch.Tensor):
        return [], [output]
    pairs = list(output.items()) if isinstance(output, Mapping) else []
    if isinstance(output, tuple | list):
        pairs = [(str(index), value) for index, value in enumerate(output)]
    names = [name for name, value in pairs if isinstance(value, torch.Tensor)]
    if not names:
        raise TypeError(f"expected the module to return tensors, alone, in a sequence or in a mapping; got {output!r}")
    return names, [value for _, value in pairs if isinstance(value, torch.Tensor)]


def _is_whole(folder: Path) -> bool:
    try:
        sizes = json.loads((folder / _MANIFEST).read_text())
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False


def _remove_older(root: Path, key: str) -> None:
    name = key.rpartition("-")[0]
    older = {path.stem for path in root.glob(f"{name}-*") if path.stem != key} if name else set()
    for other in older:
        for path in (root / other, root / f"{other}.part"):
            shutil.rmtree(path, ignore_errors=True)
        (root / f"{other}.lock").unlink(missing_ok=True)
    if older:
        _log.warning("removed %d older exports of this model from %s", len(older), root)


def _export(module: "nn.Module", inputs: "Mapping[str, Tensor]", file: Path) -> None:
    import torch

    names = list(inputs)

    class Named(torch.nn.Module):
        """Takes the inputs by their place and answers with a tuple of tensors, as an export does."""

        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, *tensors: torch.Tensor) -> Any:
            return tuple(flatten(self.module(**dict(zip(names, tensors, strict=True))))[1])

    shapes = tuple(dict.fromkeys(dynamic_dimensions(tensor), torch.export.Dim.DYNAMIC) for tensor in inputs.values())
    with torch.inference_mode():
        torch.onnx.export(
            Named().eval(),
            tuple(inputs.values()),
            str(file),
            dynamo=True,
            dynamic_shapes=(shapes,),
            input_names=names,
            verbose=False,
        )


def dynamic_dimensions(tensor: "Tensor") -> Sequence[int]:
    """The dimensions that may have another size later: the rows, and the length of token ids and their masks."""
    is_tokens = tensor.dim() == 2 and not tensor.is_floating_point()
    return (0, 1) if is_tokens else (0,)


def main(job: str, file: str, path: str) -> None:
    """Export what the job holds."""
    sys.path += [folder for folder in path.split(os.pathsep) if folder not in sys.path]
    import torch

    module, inputs = torch.load(job, weights_only=False)  # written by the process that waits for us
    _export(module, inputs, Path(file))


if __name__ == "__main__":
    main(*sys.argv[1:])
