"""Loading: reads, merges and validates every source into one LitportSettings, with the origin of every value.

Settings are loaded once and passed on as values. Loading collects all problems and reports them together.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from configs import sources
from configs.errors import SettingsError
from configs.layer import Layer, Value
from configs.problems import describe
from configs.settings import LitportSettings
from configs.shape import TreePath


@dataclass(frozen=True)
class LoadedSettings:
    """The settings, and the origin of each leaf that a source sets, such as `recipe.yaml:3`; notes for the user."""

    settings: LitportSettings
    origins: Mapping[TreePath, str]
    notes: Sequence[str] = ()


def load(
    recipes: Sequence[Path] = (),
    overrides: Sequence[str] = (),
    models: Mapping[str, Mapping[str, Any]] | None = None,
    environ: Mapping[str, str] | None = None,
) -> LoadedSettings:
    """Load the settings: command line over environment over secret files over recipes (the last first) over defaults.

    `overrides` are arguments such as `--server.port 8080`; `models` are those that the command line names without a
    recipe; `environ` is os.environ by default. Raises SettingsError with one line for each problem.
    """
    environ = os.environ if environ is None else environ
    recipe_layers: list[Layer] = []
    for recipe in recipes:
        recipe_layers.append(sources.read_recipe(recipe, recipe_layers[-1].models if recipe_layers else {}))
    targets = sources.read_models(models or {}, recipe_layers[-1].models if recipe_layers else {})
    secrets = sources.read_secrets(environ, targets.models)
    environment = sources.read_environment(environ, secrets.models)
    command_line = sources.read_command_line(overrides, environment.models)
    weakest_first = [*recipe_layers, secrets, environment, targets, command_line]

    values: dict[TreePath, Value] = {}
    for layer in weakest_first:
        for path, value in layer.values.items():
            for weaker_path in [existing for existing in values if _overlap(path, existing)]:
                del values[weaker_path]
            values[path] = value
    problems = [problem for layer in weakest_first for problem in layer.problems]
    try:
        settings = LitportSettings.from_layers([layer.to_mapping() for layer in reversed(weakest_first)])
    except ValidationError as error:
        problems += describe(error, values, command_line.models, skip_missing=bool(problems))
    if problems:
        raise SettingsError(tuple(problem.replace("\n", "\\n") for problem in problems))
    notes = [note for layer in recipe_layers for note in layer.notes]
    return LoadedSettings(settings, {path: value.origin for path, value in values.items()}, notes)


def revise(settings: LitportSettings, model: str, changes: Mapping[str, Any]) -> LitportSettings:
    """The settings with other values of one model, by their names below it, such as `args.max-model-len`.

    Raises SettingsError with one line for each problem.
    """
    engine_by_model: dict[str, str | None] = {name: other.engine for name, other in settings.models.items()}
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in changes.items()}
    layer = sources.read_command_line(
        [f"--models.{model}.{name}={text}" for name, text in texts.items()], engine_by_model
    )
    problems = list(layer.problems)
    try:
        revision = LitportSettings.from_layers([layer.to_mapping(), settings.model_dump(exclude_unset=True)])
    except ValidationError as error:
        problems += describe(error, layer.values, layer.models, skip_missing=bool(problems))
    if problems:
        raise SettingsError(tuple(problem.replace("\n", "\\n") for problem in problems))
    return revision


def _overlap(a: TreePath, b: TreePath) -> bool:
    length = min(len(a), len(b))
    return a[:length] == b[:length]
