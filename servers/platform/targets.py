"""From what stands on the command line to checked settings: recipes, bare models, LitAPI files.

`litport serve` and `litport config` share it, so that what is checked is what is started. It starts nothing and pulls
nothing.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from configs.errors import SettingsError, UserError
from configs.loading import Loaded
from configs.loading import load as load_settings
from configs.settings import LitportSettings, LitServeModel, VllmModel
from servers.apis import registry
from servers.engines.vllm import options as vllm_options
from servers.gateway.address import is_public
from servers.gateway.keys import Keyring
from servers.store import sources, weights
from servers.store.catalog import CATALOG


def load(targets: Sequence[str], overrides: Sequence[str]) -> Loaded:
    """The settings that recipes, targets, environment and overrides add up to. Raises UserError."""
    recipes = [Path(target) for target in targets if _is_recipe(target)]
    models: dict[str, Mapping[str, Any]] = {}
    for target in targets:
        if not _is_recipe(target):
            name, model = _model(target)
            if name in models:
                raise UserError(f"two models would be called {name!r}; give one of them a name of its own in a recipe")
            models[name] = model
    return load_settings(recipes, overrides, models)


def _is_recipe(target: str) -> bool:
    return target.endswith((".yaml", ".yml"))


def _model(target: str) -> tuple[str, Mapping[str, Any]]:
    """The name and the settings of a model or an API named on the command line."""
    if target in registry.BUILT_IN:
        return target, {"engine": "litserve", "api": target}
    module, colon, class_name = target.rpartition(":")
    if colon and class_name.isidentifier() and not target.startswith("pypi:"):
        stem = Path(module).stem if module.endswith(".py") else module.rpartition(".")[2]
        return stem, {"engine": "litserve", "api": target}
    if entry := CATALOG.get(target):
        if entry.engine == "litserve":
            return target, {"engine": "litserve", "api": entry.api, "source": target}
        return target, {"engine": "vllm", "source": target}
    return _name_of(sources.parse(target)), {"engine": "vllm", "source": target}


def _name_of(source: sources.Source) -> str:
    match source:
        case sources.FolderSource():
            return source.path.name
        case sources.GgufSource():
            return source.path.stem
        case sources.HubSource():
            return source.repo_id
        case _:
            return source.name


def check(loaded: Loaded) -> Keyring:
    """Validate what settings alone cannot say: sources, LitAPIs, vLLM's options; SettingsError has all problems.

    vLLM's options are judged by vLLM's own parser, in a process of its own; its verdict is remembered, so that the next
    start with the same options does not wait for it. No model is loaded and nothing is pulled. Returns the keys, which
    have been read for it.
    """
    settings = loaded.settings
    problems = []
    for name, model in settings.models.items():
        for field, check_field in (("source", _check_source), ("api", _check_api)):
            try:
                check_field(model)
            except UserError as problem:
                path = ("models", name, field)
                problems.append(f"{'.'.join(path)}: {problem} (from {loaded.origins.get(path, 'command line')})")
    keyring, of_keys = _keys(settings)
    problems += of_keys
    problems += vllm_options.check_cached(settings.models, settings.server.cache_dir, loaded.origins)
    if keyring is None or problems:
        raise SettingsError(tuple(problems))
    return keyring


def _keys(settings: LitportSettings) -> tuple[Keyring | None, Sequence[str]]:
    """The keys, if they can be read, and what is wrong: they must be there where others could call."""
    try:
        keyring = Keyring(settings.auth)
    except SettingsError as error:
        return None, error.problems
    problems = keyring.unknown_models(settings.models)
    host = settings.server.host
    if keyring.empty and not settings.auth.open_to_network and is_public(host):
        problems.append(
            f"server.host: {host} is reached from other machines, and there are no keys: anybody could call; set "
            "auth.api_keys or auth.keys_file, or --auth.open_to_network true if that is meant"
        )
    return keyring, problems


def _check_api(model: VllmModel | LitServeModel) -> None:
    if isinstance(model, LitServeModel):
        registry.check(model.api, model.init, has_source=model.source is not None)


def _check_source(model: VllmModel | LitServeModel) -> None:
    if model.source is None:
        return
    source = sources.parse(model.source)
    if isinstance(source, sources.FolderSource):
        if not source.path.is_dir():
            raise UserError(f"expected a folder with a model at {source.path}, there is none")
        if isinstance(model, VllmModel) and not (source.path / "config.json").is_file():
            raise UserError(f"expected a model that vLLM can load, but {source.path} has no config.json")
        if isinstance(model, VllmModel) or model.api in registry.BUILT_IN:  # another API knows what it opens
            _refuse_pickled(source.path)
    elif isinstance(source, sources.GgufSource) and not source.path.is_file():
        raise UserError(f"expected a GGUF file at {source.path}, there is none")


def _refuse_pickled(folder: Path) -> None:
    try:
        weights.refuse_pickled(path.name for path in folder.iterdir())
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {error.strerror}") from None
    except UserError as refusal:
        raise UserError(f"{folder}: {refusal}") from None
