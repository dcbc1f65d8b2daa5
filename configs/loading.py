"""Loading: every source read, merged and validated into one LitportSettings, with the origin of every value.

It exists so that settings are parsed once and passed on as values. It refuses to stop at the first problem: all
of them are found and told together.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from configs import layers
from configs.errors import SettingsError
from configs.layer import Layer, Value
from configs.problems import describe
from configs.settings import LitportSettings
from configs.shape import TreePath


@dataclass(frozen=True)
class Loaded:
    """The settings, and the origin of each leaf that some source set, such as `recipe.yaml:3`."""

    settings: LitportSettings
    origins: Mapping[TreePath, str]


def load(
    recipes: Sequence[Path] = (),
    overrides: Sequence[str] = (),
    models: Mapping[str, Mapping[str, Any]] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Loaded:
    """Load the settings: command line over environment over secret files over recipes (the last first) over defaults.

    `overrides` are command-line words such as `--server.port 8080`; `models` are models that the command line names
    without a recipe; `environ` is os.environ unless given. Raises SettingsError with one line for each problem.
    """
    environ = os.environ if environ is None else environ
    recipe_layers: list[Layer] = []
    for recipe in recipes:
        recipe_layers.append(layers.read_recipe(recipe, recipe_layers[-1].models if recipe_layers else {}))
    named = layers.read_models(models or {}, recipe_layers[-1].models if recipe_layers else {})
    secrets = layers.read_secrets(environ, named.models)
    environment = layers.read_environment(environ, secrets.models)
    command_line = layers.read_command_line(overrides, environment.models)
    weakest_first = [*recipe_layers, secrets, environment, named, command_line]

    values: dict[TreePath, Value] = {}
    for layer in weakest_first:
        for path, value in layer.values.items():
            values = {other: kept for other, kept in values.items() if not _overlap(path, other)} | {path: value}
    problems = [problem for layer in weakest_first for problem in layer.problems]
    try:
        settings = LitportSettings.from_layers([layer.nested() for layer in reversed(weakest_first)])
    except ValidationError as error:
        problems += describe(error, values, command_line.models, skip_missing=bool(problems))
    if problems:
        raise SettingsError(tuple(problem.replace("\n", "\\n") for problem in problems))
    return Loaded(settings, {path: value.origin for path, value in values.items()})


def _overlap(path: TreePath, other: TreePath) -> bool:
    length = min(len(path), len(other))
    return path[:length] == other[:length]
