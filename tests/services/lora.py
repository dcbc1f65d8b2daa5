"""A tiny model in two files of weights, and LoRA adapters for it, right ones and wrong ones."""

import json
from pathlib import Path
from typing import Any

from servers.store import adapter

WIDTH, OUTPUT, RANK = 6, 10, 2
Q = "model.layers.{}.self_attn.q_proj"


def write_model(folder: Path) -> Path:
    """Write a model of two layers, each in a file of its own."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(1)
    names: dict[str, str] = {}
    for layer in range(2):
        file = f"model-0000{layer + 1}-of-00002.safetensors"
        tensor = f"{Q.format(layer)}.weight"
        weight = torch.randn(OUTPUT, WIDTH, generator=generator).bfloat16()
        norm = f"model.layers.{layer}.norm.weight"
        save_file({norm: torch.ones(WIDTH), tensor: weight}, folder / file, metadata={"format": "pt"})
        names |= {tensor: file, norm: file}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "modeling.py").write_text("raise SystemExit")
    return folder


def write_adapter(
    folder: Path, layer: int = 1, width: int = WIDTH, rank: int = RANK, extra: str = "", **config: Any
) -> Path:
    """Write an adapter of the query of one layer; `extra` is a further tensor's name."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(2)
    prefix = f"base_model.model.{Q.format(layer)}.lora_"
    tensors = {
        f"{prefix}A.weight": torch.randn(rank, width, generator=generator),
        f"{prefix}B.weight": torch.randn(OUTPUT, rank, generator=generator),
    }
    if extra:
        tensors[extra] = torch.ones(2, 2)
    save_file(tensors, folder / adapter.WEIGHTS)
    fields = {"peft_type": "LORA", "r": rank, "lora_alpha": 8, "target_modules": ["q_proj"], "bias": "none", **config}
    (folder / adapter.CONFIG).write_text(json.dumps(fields))
    return folder
