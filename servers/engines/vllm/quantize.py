"""`litport models optimize NAME --precision int8`: a language model in 8 bits, as vLLM reads it.

Weights get one scale a row, inputs one a token at run time (W8A8), by the compressed-tensors package with which vLLM
loads them. No data is needed. The head and the embeddings stay.

`python -m servers.engines.vllm.quantize MODEL_DIR FOLDER` is the process that does it.
"""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.errors import UserError
from configs.settings import LitportSettings
from servers.apis import equality, pretrained
from servers.apis.exports import exports_dir
from servers.engines.base import weight_bytes
from servers.processes.interpreter import module_argv
from servers.store import Store, child, disk

if TYPE_CHECKING:
    from torch import Tensor

PROOF = "int8.json"
"""The file beside the weights with what was measured of them."""


def optimize(settings: LitportSettings, name: str, runtime: str | None, precision: str | None) -> None:
    """Write the model `name` in 8 bits, print how it answers beside float32, and where it is. Raises UserError."""
    if runtime is not None or precision != "int8":
        raise UserError(f"models.{name}: engine vllm takes --precision int8 and no --runtime")
    cache_dir = settings.server.cache_dir
    model_dir = Store(cache_dir).pull(settings.models[name].source or "")
    folder = exports_dir(cache_dir, name) / "int8"
    folder.parent.mkdir(parents=True, exist_ok=True)
    disk.require_space(folder.parent, weight_bytes(model_dir))
    sys.stderr.write("rounding to 8 bits\n")
    with tempfile.TemporaryDirectory(prefix="int8-", dir=folder.parent) as passing:
        part = Path(passing, "model")
        argv = module_argv("servers.engines.vllm.quantize", str(model_dir), str(part))
        try:
            child.run(argv, environment={**os.environ, "HF_HUB_OFFLINE": "1"}, on_tick=lambda: None)
        except child.ChildError as problem:
            raise UserError(f"models.{name} could not be written in 8 bits: {problem}") from None
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    sys.stdout.write(f"{name}: {json.loads((folder / PROOF).read_text())['note']}\nkept in {folder}\n")
    sys.stdout.write(f"to serve it: models.{name}.source: {folder}\n")


def quantize(model_dir: Path, folder: Path) -> None:
    """Write the causal model of `model_dir` into `folder`, with the comparison of its answers."""
    import torch
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import QuantizationConfig, apply_quantization_config, preset_name_to_scheme
    from compressed_tensors.quantization.utils import is_module_quantized
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    stored_dtype = AutoConfig.from_pretrained(model_dir, trust_remote_code=False).dtype or torch.bfloat16
    tokenizer = AutoTokenizer.from_pretrained(model_dir, trust_remote_code=False)
    model = pretrained.load(AutoModelForCausalLM, model_dir, dtype=torch.float32)
    expected = _answer(model, tokenizer)
    scheme = preset_name_to_scheme("W8A8", ["Linear"])
    apply_quantization_config(model, QuantizationConfig(config_groups={"group_0": scheme}, ignore=["lm_head"]))
    if not any(map(is_module_quantized, model.modules())):
        raise ValueError(f"8 bits are for linear layers, of which this model ({model.config.model_type}) has none")
    _set_scales(model)
    proof = _compare(expected, _answer(model, tokenizer))
    compressor = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and not name.endswith("_scale"):
            parameter.data = parameter.data.to(stored_dtype)
    shutil.copytree(model_dir, folder, ignore=shutil.ignore_patterns("*.safetensors*", "litport.json"))
    model.config.dtype = stored_dtype
    model.save_pretrained(folder)
    compressor.update_config(str(folder))
    (folder / PROOF).write_text(json.dumps(proof))


def _set_scales(model: Any) -> None:
    """The largest weight of each row is the largest number of 8 bits."""
    from compressed_tensors.quantization.utils import calculate_qparams, is_module_quantized

    for module in filter(is_module_quantized, model.modules()):
        weight = module.weight.data
        scale, _ = calculate_qparams(
            weight.amin(1, keepdim=True), weight.amax(1, keepdim=True), module.quantization_scheme.weights
        )
        module.weight_scale.data.copy_(scale)


def _answer(model: Any, tokenizer: Any) -> "Tensor":
    """The numbers from which the next token is taken, after each token of the texts of the proof."""
    import torch

    limit = getattr(model.config, "max_position_embeddings", None)  # tokens
    with torch.inference_mode():
        inputs = [
            tokenizer(text, return_tensors="pt", truncation=bool(limit), max_length=limit) for text in equality.TEXTS
        ]
        rows = [model(**tokens).logits[0] for tokens in inputs]
    return torch.cat(rows).float()


def _compare(expected: "Tensor", answers: "Tensor") -> dict[str, Any]:
    """What was measured. Raises ValueError where the answers are not finite."""
    cosine, top1 = equality.compare(expected, answers)
    if cosine is None or top1 is None:
        raise ValueError("its answers are not finite")
    gaps = (expected.log_softmax(-1) - answers.log_softmax(-1)).gather(1, expected.argmax(-1, keepdim=True)).abs()
    note = (
        f"int8 against float32 after {len(expected)} tokens: same next token {top1:.1%}, "
        f"its log-probability off by {gaps.mean():.2g} on average, least cosine {cosine:.5f}"
    )
    return {"note": note, "top1": top1, "logprob_distance": gaps.mean().item(), "cosine": cosine}


if __name__ == "__main__":
    quantize(*map(Path, sys.argv[1:]))
