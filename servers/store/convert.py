"""Converts GGUF and pickled weights to safetensors, once, in a process of its own.

vLLM and the built-in APIs load safetensors only. The extra process keeps torch out of the process that pulls. Pickles
that hold more than tensors are rejected (`weights_only=True`).
"""

import argparse
import os
import pickle
import re
import shutil
import sys
from pathlib import Path
from typing import Literal

from configs.errors import UserError
from servers.processes.interpreter import module_argv
from servers.store import child, disk
from servers.store.progress import Progress, Report

# Torch's message about a global that a pickle needs and may not load.
_FOREIGN = re.compile(r"GLOBAL ([\w.]+)")


def run(kind: Literal["gguf", "pickled"], source: Path, target: Path, report: Report) -> None:
    """Convert `source` into the folder `target`, which may hold side files already, in a child process.

    Raises UserError with the cause, and OSError when the disk is full; both remove `target`.
    """
    report(Progress("converting", f"converting {source.name} to safetensors, once"))
    argv = module_argv("servers.store.convert", kind, str(source), str(target))
    # All files are here; without this, a tokenizer looks for more on the hub and waits.
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    try:
        child.run(argv, environment=environment, on_tick=lambda: report(Progress("converting")))
    except BaseException as error:
        shutil.rmtree(target, ignore_errors=True)  # an incomplete model is of no use
        if isinstance(error, child.ChildError):
            raise UserError(f"{source.name} could not be converted to safetensors: {error}") from None
        raise


def convert_gguf(source: Path, target: Path) -> None:
    """Write the model and the tokenizer of a GGUF file as bfloat16 safetensors, and check that they load again.

    Raises UserError when the result does not fit on the disk or is incomplete.
    """
    import torch
    from gguf import GGUFReader
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    weights_bytes = 2 * sum(int(tensor.n_elements) for tensor in GGUFReader(source).tensors)
    disk.require_space(target, weights_bytes)
    model = AutoModelForCausalLM.from_pretrained(
        source.parent,
        gguf_file=source.name,
        quantization_config=GgufConfig(dequantize=True),  # without it, save_pretrained raises
        dtype=torch.bfloat16,
        trust_remote_code=False,  # a configuration beside the file may name code
    )
    model.save_pretrained(target)
    del model
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name, trust_remote_code=False)
    tokenizer.save_pretrained(target)
    _, report = AutoModelForCausalLM.from_pretrained(target, dtype=torch.bfloat16, output_loading_info=True)
    if missing_keys := sorted(report["missing_keys"]):
        raise UserError(f"{len(missing_keys)} weights were lost, such as {missing_keys[0]}")
    AutoTokenizer.from_pretrained(target)


def convert_pickled(source: Path, target: Path) -> None:
    """Write a pickled state dictionary as safetensors with the same names. Raises UserError for anything else."""
    import torch
    from safetensors.torch import save_file

    refusal = "expected a dictionary of tensors; it holds something else, or is damaged"
    try:
        state = torch.load(source, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if match := _FOREIGN.search(str(error)):
            raise UserError(
                f"expected a dictionary of tensors; it names {match[1]}, and loading what a pickle names can run "
                "code: refused, nothing of it was run"
            ) from None
        raise UserError(refusal) from None
    except (OSError, MemoryError):
        raise
    except Exception:  # bytes that are no pickle, or TorchScript, raise many kinds of errors
        raise UserError(refusal) from None
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UserError(refusal)
    # Copies, as safetensors takes neither views nor tensors that share memory.
    disk.require_space(target, sum(value.numel() * value.element_size() for value in state.values()))
    copies = {name: value.clone().contiguous() for name, value in state.items()}
    save_file(copies, target / "model.safetensors")


def main() -> None:
    """The child: convert, or write the reason for a failure as the last line of standard error."""
    parser = argparse.ArgumentParser(prog="python -m servers.store.convert")
    parser.add_argument("kind", choices=("gguf", "pickled"))
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    convert = convert_gguf if arguments.kind == "gguf" else convert_pickled
    try:
        convert(arguments.source, arguments.target)
    except UserError as error:
        sys.exit(str(error))
    except ValueError as error:
        if "trust_remote_code" not in str(error):
            raise
        sys.exit("the JSON files beside it ask for code of their own (auto_map), which is never run")
    _open_to_readers(arguments.target)


def _open_to_readers(folder: Path) -> None:
    umask = os.umask(0)
    os.umask(umask)
    for path in folder.iterdir():
        if path.is_file():
            path.chmod(0o666 & ~umask)  # safetensors are written as 0600


if __name__ == "__main__":
    main()
