"""A LoRA adapter in peft's form: whether it is of a kind that can be merged, and whether it fits a model.

Engines load an adapter of another model, of another width or with more layers, and answer with it. Only the headers of
weights are read here.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from configs.errors import UserError
from servers.store import damage
from servers.store.catalog import CATALOG
from servers.store.sources import CatalogSource, HubSource, Source, parse

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
MAX_RANK = 512  # vLLM's own limit of max-lora-rank

_PREFIX = "base_model.model."
_TENSOR = re.compile(r"(.+)\.lora_([AB])\.(?:default\.)?weight")
_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")
# Fields of peft's LoraConfig whose value does not change what the two factors of a module mean, or is read here. With
# any other field that is set, the adapter is more than two factors for each module.
_PLAIN_FIELDS = frozenset(
    (
        *("peft_type", "task_type", "auto_mapping", "base_model_name_or_path", "revision", "inference_mode"),
        *("r", "lora_alpha", "lora_dropout", "rank_pattern", "alpha_pattern", "use_rslora", "fan_in_fan_out", "bias"),
        *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "init_lora_weights"),
        *("megatron_core", "runtime_config", "loftq_config", "eva_config", "qalora_group_size", "peft_version"),
        *("ensure_weight_tying",),
    )
)
# Others change the model's own weights before the training.
_PLAIN_STARTS = (True, None, "gaussian", "eva", "orthogonal")

Shapes = Mapping[str, Sequence[int]]


def check(folder: Path, model_dir: Path | None, source: Source, max_rank: int = MAX_RANK) -> None:
    """Raise UserError with file and field unless the adapter is plain LoRA and fits the model from `source`.

    Without `model_dir` only what the adapter's own files say is compared.
    """
    config, adapter = read_config(folder), shapes(folder)
    if not adapter:
        raise UserError(f"{WEIGHTS}: expected the adapter's weights in {folder}, there are none")
    model = {} if model_dir is None else shapes(model_dir)
    try:
        problem = _unsupported(config, adapter) or misfit(config, adapter, model, source, max_rank)
    except (KeyError, TypeError, ValueError) as error:
        problem = f"{CONFIG}: its fields cannot be read: {error}"
    if problem is None and model:
        problem = _missing(adapter, model)
    if problem:
        raise UserError(problem)


def read_config(folder: Path) -> Mapping[str, Any]:
    """The adapter's configuration. Raises UserError for damaged files, and for a folder without one."""
    if not (folder / CONFIG).is_file():
        raise UserError(f"{CONFIG}: expected a LoRA adapter in {folder}, it has no such file")
    if problem := damage.in_folder(folder):
        raise UserError(problem)
    try:
        config = json.loads((folder / CONFIG).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{CONFIG} is cut short or not JSON ({error})") from None
    if not isinstance(config, dict):
        raise UserError(f"{CONFIG} is damaged: expected a JSON object")
    return config


def shapes(folder: Path) -> Shapes:
    """The shapes of all tensors in the folder's safetensors files, by name."""
    return {
        tensor: tuple(entry["shape"])
        for file in sorted(folder.glob("*.safetensors"))
        for tensor, entry in damage.read_header(file)[2].items()
        if tensor != "__metadata__"
    }


def factor(tensor: str) -> tuple[str, str] | None:
    """The module and the side, A or B, of an adapter's tensor; None for one that is no factor."""
    match = _TENSOR.fullmatch(tensor)
    return (match[1].removeprefix(_PREFIX), match[2]) if match else None


def setting_of(config: Mapping[str, Any], module: str, default: str, patterns: str) -> float:
    """The rank or alpha of a module: by the first of the `patterns` that matches the end of its name, as in peft."""
    for pattern, value in (config.get(patterns) or {}).items():
        if re.match(rf"(?:.*\.)?(?:{pattern})$", module):
            return float(value)
    return float(config[default])


def highest_rank(config: Mapping[str, Any]) -> int:
    """The rank that an engine must have room for: `r`, or that of a module by `rank_pattern`."""
    return max(map(int, (config["r"], *(config.get("rank_pattern") or {}).values())))


def misfit(config: Mapping[str, Any], adapter: Shapes, model: Shapes, source: Source, max_rank: int) -> str | None:
    """Why base, rank, layers or shapes are not those of the model; what its names do not settle is no problem."""
    if problem := _base_problem(config, source):
        return problem
    rank = int(config["r"])
    if rank > max_rank:
        return f"{CONFIG}: r: its rank is {rank}, and args.max-lora-rank is {max_rank}"
    layers = [int(match[1]) for name in model if (match := _LAYER.search(name))]
    for tensor, shape in adapter.items():
        parts = factor(tensor)
        if parts is None or len(shape) != 2:
            continue
        module, side = parts
        tensor_rank, width = shape if side == "A" else shape[::-1]
        module_rank = setting_of(config, module, "r", "rank_pattern")
        if tensor_rank > max_rank:
            return f"{CONFIG}: rank_pattern: {module} has rank {tensor_rank}, and args.max-lora-rank is {max_rank}"
        if tensor_rank != module_rank:
            return f"{WEIGHTS}: its rank is {module_rank:.0f} by {CONFIG}, and {tensor} has {list(shape)}"
        layer = _LAYER.search(module)
        if layer and layers and int(layer[1]) > max(layers):
            return f"{WEIGHTS}: it has layer {layer[1]} ({tensor}), and the model's last one is {max(layers)}"
        base = model.get(f"{module}.weight", ())  # none where the weights are packed, or named in another way
        if len(base) == 2 and width != base[(side == "A") != bool(config.get("fan_in_fan_out"))]:
            return f"{WEIGHTS}: {tensor} has {list(shape)}, and the model's {module}.weight {list(base)}"
    return None


def _unsupported(config: Mapping[str, Any], adapter: Shapes) -> str | None:
    kind = config.get("peft_type")
    if kind != "LORA":
        return f"{CONFIG}: peft_type: expected LORA, got {kind!r}"
    for field, value in config.items():
        if value and field not in _PLAIN_FIELDS:
            return f"{CONFIG}: {field}: expected plain LoRA, without it, got {str(value)[:80]}"
    if (bias := config.get("bias", "none")) != "none":
        return f"{CONFIG}: bias: expected none, got {bias!r}"
    if (start := config.get("init_lora_weights", True)) and start not in _PLAIN_STARTS:
        return f"{CONFIG}: init_lora_weights: expected weights that leave the model's own as they are, got {start!r}"
    sides: dict[str, set[str]] = {}
    for tensor, shape in adapter.items():
        parts = factor(tensor)
        if parts is None or len(shape) != 2:
            return f"{WEIGHTS}: {tensor}: expected lora_A and lora_B of linear layers only"
        sides.setdefault(parts[0], set()).add(parts[1])
    for module, names in sides.items():
        if len(names) != 2:
            return f"{WEIGHTS}: {module}: expected lora_A and lora_B, got lora_{names.pop()} alone"
    return None


def _missing(adapter: Shapes, model: Shapes) -> str | None:
    for tensor in adapter:
        parts = factor(tensor)
        if parts is not None and f"{parts[0]}.weight" not in model:
            return f"{WEIGHTS}: {tensor}: the model has no {parts[0]}.weight"
    return None


def _base_problem(config: Mapping[str, Any], source: Source) -> str | None:
    """Whether it was made for another model of the hub; names of folders say nothing."""
    base = config.get("base_model_name_or_path")
    texts = CATALOG[source.name].sources if isinstance(source, CatalogSource) else (str(source),)
    names = [origin.repo_id for text in texts if isinstance(origin := parse(text), HubSource)]
    if not names or not isinstance(base, str) or Path(base).exists():
        return None
    try:
        origin = parse(base)
    except UserError:
        return None
    if not isinstance(origin, HubSource) or origin.repo_id.lower() in map(str.lower, names):
        return None
    return (
        f"{CONFIG}: base_model_name_or_path: it is made for {base}, and the model is {names[0]}; if both are the same "
        "weights, write this name there"
    )
