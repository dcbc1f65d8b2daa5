"""LoRA adapters of the settings, compared with the weights that they are for, by their files alone.

vLLM 0.32 loads an adapter of another model, of another width or with more layers, without a word and answers with it.
Only headers are read, and only of adapters in local folders; what their names do not settle is left to vLLM.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from configs.errors import UserError
from configs.settings import VllmModel
from servers.store import damage, sources

_PREFIX = "base_model.model."
_TENSOR = re.compile(r"(.+)\.lora_([AB])\.(?:default\.)?weight")
_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")
_DEFAULT_MAX_RANK = 16  # of vLLM's max-lora-rank

Shapes = Mapping[str, tuple[int, ...]]


def check(settings: VllmModel, model_dir: Path) -> None:
    """Raise UserError for the first adapter whose base, rank, layers or shapes are not those of the model's folder."""
    for name, folder in _adapters(settings.args.get("lora-modules")):
        config_file = folder / "adapter_config.json"
        if not config_file.is_file():
            continue  # a repository of the hub, which vLLM pulls
        try:
            config = json.loads(config_file.read_bytes())
            problem = _problem(config, _shapes(folder), _shapes(model_dir), settings)
        except (OSError, ValueError, KeyError, TypeError) as error:
            problem = f"its files cannot be read: {error}"
        if problem:
            raise UserError(f"args.lora-modules: adapter {name!r} ({folder}): {problem}")


def _adapters(modules: Any) -> Iterator[tuple[str, Path]]:
    """Name and folder of each: `NAME=PATH`, or an object with both, which may be written as JSON."""
    for module in modules if isinstance(modules, list) else [modules] if modules else []:
        if isinstance(module, str) and module.startswith("{"):
            module = json.loads(module)
        if isinstance(module, Mapping):
            yield str(module.get("name")), Path(str(module.get("path")))
        else:
            name, _, path = str(module).partition("=")
            yield name, Path(path)


def _problem(config: Mapping[str, Any], adapter: Shapes, model: Shapes, settings: VllmModel) -> str | None:
    if problem := _base_problem(config, settings):
        return problem
    rank, limit = int(config["r"]), int(str(settings.args.get("max-lora-rank") or _DEFAULT_MAX_RANK))
    if rank > limit:
        return f"its rank is {rank}, and args.max-lora-rank is {limit}"
    layers = [int(match[1]) for name in model if (match := _LAYER.search(name))]
    has_one_rank = not config.get("rank_pattern")
    for tensor, shape in adapter.items():
        match = _TENSOR.fullmatch(tensor)
        if match is None or len(shape) != 2:
            continue
        module, side = match[1].removeprefix(_PREFIX), match[2]
        tensor_rank, width = shape if side == "A" else shape[::-1]
        if has_one_rank and tensor_rank != rank:
            return f"its rank is {rank} by adapter_config.json, and {tensor} has {list(shape)}"
        layer = _LAYER.search(module)
        if layer and layers and int(layer[1]) > max(layers):
            return f"it has layer {layer[1]} ({tensor}), and the model's last one is {max(layers)}"
        base = model.get(f"{module}.weight", ())  # none where the weights are packed, or named in another way
        if len(base) == 2 and width != base[1 if side == "A" else 0]:
            return f"{tensor} has {list(shape)}, and the model's {module}.weight {list(base)}"
    return None


def _base_problem(config: Mapping[str, Any], settings: VllmModel) -> str | None:
    """Whether it was made for another model of the hub; names of folders say nothing."""
    base, source = config.get("base_model_name_or_path"), sources.parse(settings.source)
    if not isinstance(source, sources.HubSource) or not isinstance(base, str) or Path(base).exists():
        return None
    try:
        origin = sources.parse(base)
    except UserError:
        return None
    if not isinstance(origin, sources.HubSource) or origin.repo_id.lower() == source.repo_id.lower():
        return None
    return (
        f"it is made for {base}, and the model is {source.repo_id}; if both are the same weights, write this name as "
        "base_model_name_or_path in adapter_config.json"
    )


def _shapes(folder: Path) -> Shapes:
    """The shapes of all tensors in the folder's safetensors files, by name."""
    return {
        tensor: tuple(entry["shape"])
        for file in sorted(folder.glob("*.safetensors"))
        for tensor, entry in damage.read_header(file)[2].items()
        if tensor != "__metadata__"
    }
