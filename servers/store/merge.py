"""Merges a LoRA adapter into a copy of a model, once, in a process of its own, which keeps torch out of the caller's.

Each changed tensor W becomes W + B A alpha / rank, computed in float32 and rounded to the type of W, as peft's
`merge_and_unload` does. A file of weights is copied and changed where its tensors stand, so that memory holds one
tensor at a time; a file without a changed tensor is a hard link to the model's own and takes no space.
"""

import argparse
import mmap
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.errors import UserError
from servers.processes.interpreter import module_argv
from servers.store import adapter, child, damage, disk, weights
from servers.store.errors import SourceError
from servers.store.manifest import FILE_NAME, FetchedModel
from servers.store.progress import Progress, Report
from servers.store.sources import MergedSource

if TYPE_CHECKING:
    import torch

_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def fetch(source: MergedSource, base_dir: Path, adapter_dir: Path, work_dir: Path, report: Report) -> FetchedModel:
    """Fill a folder below `work_dir` with the merged model. Raises UserError, SourceError and OSError."""
    try:
        adapter.check(adapter_dir, base_dir, source.base)
    except UserError as problem:
        raise SourceError(f"the adapter does not fit: {problem}") from None
    target = work_dir / "merged"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    report(Progress("converting", f"merging {source.adapter} into a copy of {source.base}, once"))
    argv = module_argv("servers.store.merge", str(base_dir), str(adapter_dir), str(target))
    try:
        child.run(argv, environment=os.environ, on_tick=lambda: report(Progress("converting")))
    except child.ChildError as error:
        raise SourceError(f"it could not be merged: {error}") from None
    return FetchedModel(target, str(source), None, {})


def merge(base: Path, adapter_dir: Path, target: Path) -> None:
    """Write the model `base` with the adapter in its weights into the empty folder `target`.

    Raises UserError for weights in a type that is not added to, and when the disk is full.
    """
    changes = _changes(adapter_dir)
    names = [str(path.relative_to(base)) for path in base.rglob("*") if path.is_file() and path.name != FILE_NAME]
    choice = weights.from_repository(names)
    headers = {name: damage.read_header(base / name)[2] for name in choice.weights}
    changed = {name for name, header in headers.items() if changes.keys() & header.keys()}
    disk.require_space(target, sum((base / name).stat().st_size for name in changed))
    for name in choice.files:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        if name in headers and name not in changed:
            _link(base / name, target / name)
        else:
            shutil.copyfile(base / name, target / name)
    for name in changed:
        _add(target / name, changes)


def _changes(folder: Path) -> "Mapping[str, tuple[torch.Tensor, torch.Tensor, float, bool]]":
    """For each tensor of the model: the factors A and B, their scale, and whether the model has it transposed."""
    from safetensors.torch import load_file

    config = adapter.read_config(folder)
    factors: dict[str, dict[str, Any]] = {}
    for tensor, value in load_file(folder / adapter.WEIGHTS).items():
        parts = adapter.factor(tensor)
        assert parts is not None, "the adapter was checked"
        factors.setdefault(parts[0], {})[parts[1]] = value.float()
    changes = {}
    for module, sides in factors.items():
        rank = sides["A"].shape[0]
        alpha = adapter.setting_of(config, module, "lora_alpha", "alpha_pattern")
        scale = alpha / (rank**0.5 if config.get("use_rslora") else rank)
        changes[f"{module}.weight"] = (sides["A"], sides["B"], scale, bool(config.get("fan_in_fan_out")))
    return changes


def _add(file: Path, changes: "Mapping[str, tuple[torch.Tensor, torch.Tensor, float, bool]]") -> None:
    """Add to the tensors of a safetensors file in their place."""
    import torch

    _, header_bytes, header = damage.read_header(file)
    with file.open("r+b") as stream, mmap.mmap(stream.fileno(), 0) as memory:
        for tensor in changes.keys() & header.keys():
            entry, (a, b, scale, is_transposed) = header[tensor], changes[tensor]
            if entry["dtype"] not in _DTYPES:
                raise UserError(f"{file.name}: {tensor} is {entry['dtype']}; expected weights in {', '.join(_DTYPES)}")
            begin, end = (8 + header_bytes + offset for offset in entry["data_offsets"])
            dtype = getattr(torch, _DTYPES[entry["dtype"]])
            weight = torch.frombuffer(bytearray(memory[begin:end]), dtype=dtype).view(entry["shape"])
            delta = b @ a * scale
            weight += delta.T if is_transposed else delta
            memory[begin:end] = weight.view(torch.uint8).numpy().tobytes()


def _link(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError:  # another disk, or a file of another user
        shutil.copyfile(source, target)


def main() -> None:
    """The child: merge, or write the reason for a failure as the last line of standard error."""
    parser = argparse.ArgumentParser(prog="python -m servers.store.merge")
    parser.add_argument("base", type=Path)
    parser.add_argument("adapter", type=Path)
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    try:
        merge(arguments.base, arguments.adapter, arguments.target)
    except (UserError, SourceError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
