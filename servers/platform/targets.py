"""The targets of the command line (recipes, models, LitAPI files) become checked settings.

`litport serve`, `config` and `bench` share this module, so that what is checked is what is started.
"""

import ast
import dataclasses
from collections.abc import Container, Iterator, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from configs.cluster import read_secret
from configs.errors import SettingsError, UserError
from configs.loading import LoadedSettings
from configs.loading import load as load_settings
from configs.model import Autoscaling
from configs.settings import LitportSettings, ModelSettings
from configs.shape import TreePath
from servers.apis import registry as apis
from servers.engines import registry
from servers.gateway.address import is_public
from servers.gateway.audit import check_audit_file
from servers.gateway.keys import Keyring
from servers.gateway.routes import registry as routes
from servers.gateway.tls import check_tls
from servers.store import sources
from servers.store.catalog import CATALOG


def load(targets: Sequence[str], overrides: Sequence[str]) -> LoadedSettings:
    """The settings that recipes, targets, environment and overrides add up to. Raises UserError."""
    register_installed()
    recipes = [Path(target) for target in targets if is_recipe(target)]
    models: dict[str, Mapping[str, Any]] = {}
    for target in targets:
        if not is_recipe(target):
            name, model = _model(target)
            if name in models:
                raise UserError(f"two models would be called {name!r}; give one of them a name of its own in a recipe")
            models[name] = model
    return _derive(load_settings(recipes, overrides, models))


def _derive(loaded: LoadedSettings) -> LoadedSettings:
    """Put the models in the place of settings that stand for several, such as those with adapters."""
    models: dict[str, ModelSettings] = {}
    origins = dict(loaded.origins)
    for base_name, base in loaded.settings.models.items():
        derived = registry.kind_of(base).derive(base_name, base)
        models |= derived
        for name in derived.keys() - {base_name}:
            origins |= _derived_origins(loaded.origins, ("models", base_name), name, derived)
    settings = loaded.settings.model_copy(update={"models": models})
    return dataclasses.replace(loaded, settings=settings, origins=origins)


def _derived_origins(
    origins: Mapping[TreePath, str], base: TreePath, name: str, derived: Container[str]
) -> Mapping[TreePath, str]:
    """The origins of a derived model's settings: those of its base, and its source is where the base names it."""
    fields = {path[2:]: origin for path, origin in origins.items() if path[:2] == base}
    own: dict[TreePath, str] = {}
    for path, origin in fields.items():
        if not any(part in derived for part in path):
            own.setdefault(("models", name, *path), origin)
        elif name in path:
            own["models", name, "source"] = origin
    return own


def register_installed() -> None:
    """Offer the engines and routes that installed packages bring. Raises UserError for one that cannot be imported."""
    registry.register_installed()
    routes.register_installed()


def is_recipe(target: str) -> bool:
    """Whether a target is a recipe."""
    return target.endswith((".yaml", ".yml"))


def _model(target: str) -> tuple[str, Mapping[str, Any]]:
    """The name and the settings of a model or an API named on the command line."""
    if target in apis.BUILT_IN:
        return target, {"engine": "litserve", "api": target}
    if target.endswith(".py"):
        target = f"{target}:{_only_api(Path(target))}"
    module, colon, class_name = target.rpartition(":")
    if colon and class_name.isidentifier() and not target.startswith("pypi:"):
        stem = Path(module).stem if module.endswith(".py") else module.rpartition(".")[2]
        return stem, {"engine": "litserve", "api": target}
    if entry := CATALOG.get(target):
        if entry.engine == "litserve":
            return target, {"engine": "litserve", "api": entry.api, "source": target}
        return target, {"engine": "vllm", "source": target, "args": dict(entry.args or {})}
    return _name_of(sources.parse(target)), {"engine": "vllm", "source": target}


def _only_api(file: Path) -> str:
    """The LitAPI of a file that has one, as its text says; the file is not run. Raises UserError."""
    try:
        module = ast.parse(file.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, UnicodeDecodeError) as problem:
        cause = problem.strerror if isinstance(problem, OSError) else problem
        raise UserError(f"{file}: expected a Python file with a LitAPI, got {cause}") from None
    apis_of_file: list[str] = []
    for statement in module.body:
        if isinstance(statement, ast.ClassDef):
            bases = [ast.unparse(base).rpartition(".")[2] for base in statement.bases]
            if "LitAPI" in bases or any(base in apis_of_file for base in bases):
                apis_of_file.append(statement.name)
    if len(apis_of_file) != 1:
        names = ", ".join(apis_of_file) or "none"
        raise UserError(f"{file}: expected the class behind a colon, as in {file}:MyAPI; its LitAPIs are: {names}")
    return apis_of_file[0]


def _name_of(source: sources.Source) -> str:
    match source:
        case sources.FolderSource():
            return source.path.name
        case sources.GgufSource():
            return source.path.stem
        case sources.HubSource():
            return source.repo_id
        case sources.MergedSource():
            return _name_of(source.adapter)
        case _:
            return source.name


def check(loaded: LoadedSettings) -> Keyring:
    """Check what settings alone cannot say: sources, LitAPIs, vLLM's options. Raises SettingsError with all problems.

    vLLM's own parser judges vLLM's options, in a process of its own; a clean outcome is remembered, so that the next
    start with the same options is quicker. No model is loaded or pulled. Returns the keys that were read for the check.
    """
    settings = loaded.settings
    problems = []
    if not settings.models:
        problems.append(
            "models: expected one model or more, got none; a recipe has them under `models`, or `serve MODEL`"
        )
    if settings.limits.redis_url is not None and find_spec("redis") is None:
        problems.append("limits.redis_url: redis-py is not installed; make redis")
    keyring, key_problems = _keys(settings)
    problems += [*_model_problems(loaded), *key_problems, *_file_problems(settings)]
    if keyring is None or problems:
        raise SettingsError(tuple(problems))
    return keyring


def check_replica(loaded: LoadedSettings) -> str:
    """As `check`, for a replica of the only model, whose port needs a secret and no keys. Returns the secret."""
    problems = [*_model_problems(loaded), *_file_problems(loaded.settings)]
    try:
        secret = read_secret(loaded.settings.cluster)
    except UserError as problem:
        problems.append(str(problem))
    if problems:
        raise SettingsError(tuple(problems))
    return secret


def _file_problems(settings: LitportSettings) -> Iterator[str]:
    checks = [partial(check_tls, settings.server)]
    if settings.telemetry.audit_file is not None:
        checks.append(partial(check_audit_file, settings.telemetry.audit_file))
    for check_file in checks:
        try:
            check_file()
        except UserError as problem:
            yield str(problem)


def describe(loaded: LoadedSettings) -> Sequence[str]:
    """The lines of `config check` for settings that were checked: the models, and what their engines say of them."""
    models = loaded.settings.models
    notes = {name: _describe(model) for name, model in models.items()}
    valid = f"all settings are valid; models: {', '.join(models) or 'none'}"
    return [valid, *(f"{name}: {note}" for name, note in notes.items() if note), *loaded.notes]


def _describe(model: ModelSettings) -> str:
    if not registry.has_replicas(model):
        return registry.kind_of(model).describe_model(model)
    hosts = {parts.hostname or "" for url in model.instances if (parts := urlsplit(url)).scheme == "http"}
    plain = sorted(host for host in hosts if is_public(host))
    note = f"replicas at {', '.join(model.instances)}, which check the model's own settings"
    return f"{note}; the secret and requests go to {', '.join(plain)} unencrypted; use https" if plain else note


def _model_problems(loaded: LoadedSettings) -> Iterator[str]:
    """The problems of each model, and of all models of an engine. A model with replicas is checked by these."""
    settings = loaded.settings
    has_replicas = False
    for name, model in settings.models.items():
        if isinstance(model.replicas, Autoscaling) and settings.cluster.dashboard is None:
            origin = _origin(loaded.origins, ("models", name, "replicas"))
            yield f"models.{name}.replicas: expected a number without cluster.dashboard, got a range (from {origin})"
        elsewhere = registry.has_replicas(model)
        has_replicas = has_replicas or elsewhere
        for field, problem in _replica_problems(model) if elsewhere else registry.kind_of(model).check_model(model):
            path = ("models", name, *field.split("."))
            yield f"{'.'.join(path)}: {problem} (from {_origin(loaded.origins, path)})"
    if has_replicas:
        try:
            read_secret(settings.cluster)
        except UserError as problem:
            yield str(problem)
    here = {name: model for name, model in settings.models.items() if not registry.has_replicas(model)}
    for kind in registry.kinds():
        models = {name: model for name, model in here.items() if registry.kind_of(model) is kind}
        yield from kind.check_all(models, settings.server.cache_dir, loaded.origins)


def _origin(origins: Mapping[TreePath, str], path: TreePath) -> str:
    """Where the setting comes from, or else what stands in the same section."""
    for length in range(len(path), 1, -1):
        for leaf, origin in origins.items():
            if leaf[:length] == path[:length]:
                return origin
    return "command line"


def _replica_problems(model: ModelSettings) -> Iterator[tuple[str, str]]:
    if model.replicas != 1:
        yield "replicas", "expected 1 beside instances: each address is one replica"


def _keys(settings: LitportSettings) -> tuple[Keyring | None, Sequence[str]]:
    """The keys, None if they cannot be read, and the problems; an address that other machines reach needs keys."""
    try:
        keyring = Keyring(settings.auth)
    except SettingsError as error:
        return None, error.problems
    problems = keyring.unknown_models(settings.granted_names)
    host = settings.server.host
    if keyring.empty and not settings.auth.open_to_network and is_public(host):
        problems.append(
            f"server.host: {host} is reached from other machines, and there are no keys: anybody could call; set "
            "auth.api_keys or auth.keys_file, or --auth.open_to_network true if that is meant"
        )
    return keyring, problems
