"""LoRA adapters of the settings: compared with the model by their files, and served.

vLLM 0.32 loads an adapter of another model, of another width or with more layers, without a word and answers with it.
Its CPU build computes requests to the base model with the weights of an adapter that is in the same batch: there an
adapter of `adapters` becomes a model of its own, whose files the store merges. On a GPU vLLM applies it itself, and
further ones come and go while it serves.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from configs.errors import UserError
from configs.settings import VllmModel
from configs.shape import TreePath
from servers.engines.base import post
from servers.engines.connection import Connection
from servers.store import Store, adapter, sources

_DEFAULT_MAX_RANK = 16  # of vLLM's max-lora-rank
_MAX_RANKS = (8, 16, 32, 64, 128, 256, 320, adapter.MAX_RANK)  # that vLLM takes for it


def check(settings: VllmModel, model_dir: Path) -> None:
    """Raise UserError for the first adapter of `args.lora-modules` that does not fit the model's folder."""
    max_rank = _limit(settings) or _DEFAULT_MAX_RANK
    for name, folder in _modules(settings.args.get("lora-modules")):
        if not (folder / adapter.CONFIG).is_file():
            continue  # a repository of the hub, which vLLM pulls
        try:
            config, shapes = adapter.read_config(folder), adapter.shapes(folder)
            source = sources.parse(settings.source)
            problem = adapter.misfit(config, shapes, adapter.shapes(model_dir), source, max_rank)
        except (UserError, OSError, ValueError, KeyError, TypeError) as error:
            problem = f"its files cannot be read: {error}"
        if problem:
            raise UserError(f"args.lora-modules: adapter {name!r} ({folder}): {problem}")


def problems(
    models: Mapping[str, VllmModel], cache_dir: Path, origins: Mapping[TreePath, str] | None = None
) -> list[str]:
    """One line for each adapter that is no plain LoRA, or does not fit its model where that is here."""
    lines, origins, store = [], origins or {}, Store(cache_dir)
    for path, settings, source in _adapters(models, origins):
        try:
            _check(settings, source, store, store.find(settings.source))
        except UserError as problem:
            lines.append(f"{'.'.join(path)}: {problem} (from {origins.get(path, 'command line')})")
    return lines


def merged_models(name: str, settings: VllmModel) -> dict[str, VllmModel]:
    """The model alone, and one for each adapter with the same settings: on a CPU, where vLLM mixes them up.

    So the base stays the same model when adapters come and go.
    """
    base = settings.model_copy(update={"adapters": {}})
    models = {name: base}
    for adapter_name, item in settings.adapters.items():
        source = sources.merged(settings.source, item.source)
        models[adapter_name] = base.model_copy(update={"source": source, "aliases": [], "fallback": None})
    return models


def options(settings: VllmModel, cache_dir: Path, model_dir: Path | None) -> dict[str, Any]:
    """vLLM's options for the adapters, in its own spelling; an adapter that is not in the store is pulled by vLLM.

    Raises UserError for the first one that does not fit the model's folder.
    """
    if not settings.adapters:
        return {}
    store = Store(cache_dir)
    for name, item in settings.adapters.items():
        try:
            _check(settings, item.source, store, model_dir)
        except UserError as problem:
            raise UserError(f"adapters.{name}.source: {problem}") from None
    return {
        "enable-lora": True,
        "lora-modules": [f"{name}={path}" for name, path in _paths(settings, store).items()],
        "max-loras": len(settings.adapters),
        "max-lora-rank": _max_rank(settings, store),
    }


def can_change(before: VllmModel, after: VllmModel, cache_dir: Path) -> bool:
    """Whether vLLM, which was started with the adapters of `before`, can take those of `after` while it runs.

    It has no room for a higher rank. One whose source has changed waits for new processes: answers that are being
    generated would go on with other weights, and between an unload and a load its name would lead nowhere.
    """
    if not can_load(before):
        return False
    store, common = Store(cache_dir), before.adapters.keys() & after.adapters.keys()
    return all(before.adapters[name] == after.adapters[name] for name in common) and (
        not after.adapters or _max_rank(after, store) <= _max_rank(before, store)
    )


def can_load(settings: VllmModel) -> bool:
    """Whether vLLM is started so that it loads adapters while it runs: with one, and a single API server."""
    several = ("api-server-count", "data-parallel-size")
    is_single = all(str(settings.args.get(option) or 1) == "1" for option in several)
    return bool(settings.adapters) and is_single and "lora-modules" not in settings.args


async def change(
    connection: Connection, settings: VllmModel, cache_dir: Path, listing: Sequence[Mapping[str, Any]]
) -> None:
    """Load the adapters that vLLM lacks by its `listing`, and unload those that the settings lack.

    Raises CanaryError where vLLM refuses one, CONNECTION_LOST.
    """
    loaded = {str(entry["id"]) for entry in listing if entry.get("parent")}
    paths = _paths(settings, Store(cache_dir))
    for name in paths.keys() - loaded:
        await post(connection, "/v1/load_lora_adapter", {"lora_name": name, "lora_path": paths[name]})
    for name in loaded - paths.keys():
        await post(connection, "/v1/unload_lora_adapter", {"lora_name": name})


def _adapters(
    models: Mapping[str, VllmModel], origins: Mapping[TreePath, str]
) -> Iterator[tuple[TreePath, VllmModel, str]]:
    """Path, model and source of each adapter, also of those that are merged models by now."""
    paths = {path[3]: path for path in origins if len(path) == 5 and path[2] == "adapters"}
    for name, settings in models.items():
        for adapter_name, item in settings.adapters.items():
            yield ("models", name, "adapters", adapter_name, "source"), settings, item.source
        if parts := sources.merged_parts(settings.source):
            path = paths.get(name, ("models", name, "source"))
            yield path, settings.model_copy(update={"source": parts[0]}), parts[1]


def _paths(settings: VllmModel, store: Store) -> dict[str, str]:
    """The folder of each adapter, or its name on the hub, from which vLLM pulls it."""
    return {name: str(store.find(item.source) or item.source) for name, item in settings.adapters.items()}


def _max_rank(settings: VllmModel, store: Store) -> int:
    """The least of vLLM's limits that the adapters keep; the highest where the files of one are not here."""
    if (limit := _limit(settings)) is not None:
        return limit
    folders = [store.find(item.source) for item in settings.adapters.values()]
    if None in folders:
        return adapter.MAX_RANK
    ranks = [adapter.highest_rank(adapter.read_config(folder)) for folder in folders if folder is not None]
    return next((rank for rank in _MAX_RANKS if rank >= max(ranks, default=0)), adapter.MAX_RANK)


def _limit(settings: VllmModel) -> int | None:
    """The option max-lora-rank; None where it is not set, or is no number, which vLLM refuses."""
    try:
        return int(str(settings.args.get("max-lora-rank")))
    except ValueError:
        return None


def _check(settings: VllmModel, text: str, store: Store, model_dir: Path | None) -> None:
    base, source = sources.parse(settings.source), sources.parse(text)
    if not isinstance(source, sources.HubSource | sources.FolderSource):
        raise UserError(f"expected an adapter of the hub or a folder, got {text!r}")
    if isinstance(source, sources.FolderSource) and not source.path.is_dir():
        raise UserError(f"expected a folder with a LoRA adapter at {source.path}, there is none")
    folder = source.path if isinstance(source, sources.FolderSource) else store.find(text)
    max_rank = _limit(settings) or adapter.MAX_RANK
    if folder is not None:
        try:
            adapter.check(folder, model_dir, base, max_rank)
        except UserError as problem:
            raise UserError(f"{problem} (in {folder})") from None


def _modules(modules: Any) -> Iterator[tuple[str, Path]]:
    """Name and folder of each: `NAME=PATH`, or an object with both, which may be written as JSON."""
    for module in modules if isinstance(modules, list) else [modules] if modules else []:
        if isinstance(module, str) and module.startswith("{"):
            module = json.loads(module)
        if isinstance(module, Mapping):
            yield str(module.get("name")), Path(str(module.get("path")))
        else:
            name, _, path = str(module).partition("=")
            yield name, Path(path)
