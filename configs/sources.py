"""The sources of settings: recipes, secret files, environment and command line, each read into a layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from configs import document, engines
from configs.document import MalformedError
from configs.layer import SECRET_ORIGIN, Layer, NodeReader
from configs.names import COMMAND_LINE, ENVIRONMENT, SECRET_FILE, Models, Notation, nearest
from configs.paths import start_at_recipe
from configs.shape import Leaf, tree

SECRETS_DIR = "LITPORT_SECRETS_DIR"
DOCKER_SECRETS = Path("/run/secrets")


def read_recipe(recipe: Path, models: Models) -> Layer:
    """Read one YAML file."""
    layer = Layer(dict(models))
    try:
        node = document.compose(recipe.read_text(encoding="utf-8"))
    except OSError as error:
        recipes = {path.stem: path for path in recipe.parent.glob("*.y*ml")}
        suggestion = nearest(recipe.stem, recipes)
        advice = f"did you mean {recipes[suggestion]}?" if suggestion else "give the path of a YAML file"
        layer.problems.append(f"{recipe}: expected a recipe, got {error.strerror}; {advice} (from command line)")
    except UnicodeDecodeError:
        layer.problems.append(
            f"{recipe}: expected text in UTF-8, got other bytes; save it as UTF-8 (from command line)"
        )
    except MalformedError as error:
        layer.problems.append(f"{recipe}:{error.line}: expected YAML: {error}; check indentation and quotes")
    else:
        if node is not None:
            NodeReader(layer, str(recipe), lines=True).read(node, tree(), ())
            start_at_recipe(layer, recipe)
    return layer


def read_models(targets: Mapping[str, Mapping[str, Any]], models: Models) -> Layer:
    """Read models that the command line names as targets, in place of a recipe."""
    layer = Layer(dict(models))
    text = yaml.safe_dump({"models": {name: dict(model) for name, model in targets.items()}}, sort_keys=False)
    layer.put_text((), tree(), text, "command line")
    return layer


def read_secrets(environ: Mapping[str, str], models: Models) -> Layer:
    """Read the files `litport_*` in $LITPORT_SECRETS_DIR, or in /run/secrets where the variable is not set."""
    layer = Layer(dict(models))
    folder = Path(environ.get(SECRETS_DIR) or DOCKER_SECRETS)
    if not folder.is_dir():
        if environ.get(SECRETS_DIR):
            layer.problems.append(
                f"{SECRETS_DIR}: expected a folder, got {str(folder)!r}; make it or unset it (from environment)"
            )
        return layer
    for file in sorted(folder.glob("*")):
        name = file.name[len(SECRET_FILE.prefix) :]
        origin = SECRET_ORIGIN + file.name
        if file.name.lower().startswith(SECRET_FILE.prefix) and file.is_file():
            try:
                layer.put_named(SECRET_FILE, name, file.read_text(encoding="utf-8").strip(), origin)
            except (OSError, UnicodeDecodeError):
                layer.problems.append(f"{file}: expected a file of text that can be read (from {origin})")
    return layer


def read_environment(environ: Mapping[str, str], models: Models) -> Layer:
    """Read every LITPORT_ variable except LITPORT_SECRETS_DIR, which is no setting."""
    prefix = ENVIRONMENT.prefix
    variables = {name: text for name, text in environ.items() if name.startswith(prefix) and name != SECRETS_DIR}
    texts = {name.removeprefix(prefix): text for name, text in sorted(variables.items(), key=_shallow_first)}
    layer = Layer(_with_new_models(ENVIRONMENT, texts, models))
    for name, text in texts.items():
        layer.put_named(ENVIRONMENT, name, text, f"environment {prefix}{name}")
    return layer


def split_overrides(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split a command line into the arguments of the command and the overrides of settings, in any order.

    An override begins with `--` and has a dot in its name. The next argument is its value, unless the override has an
    `=` or the next argument begins with `--`.
    """
    arguments: list[str] = []
    overrides: list[str] = []
    queue = list(argv)
    while queue:
        argument = queue.pop(0)
        if not argument.startswith("--") or "." not in argument.partition("=")[0]:
            arguments.append(argument)
            continue
        overrides.append(argument)
        if "=" not in argument and queue and not queue[0].startswith("--"):
            overrides.append(queue.pop(0))
    return arguments, overrides


def read_command_line(overrides: Sequence[str], models: Models) -> Layer:
    """Read `--path value`, `--path=value` and, where true makes sense, a bare `--path`; the last one counts."""
    values: list[tuple[str, str | None]] = []
    problems = []
    queue = list(overrides)
    while queue:
        argument = queue.pop(0)
        name, equals, text = argument.removeprefix(COMMAND_LINE.prefix).partition("=")
        if not argument.startswith(COMMAND_LINE.prefix) or not name:
            problems.append(
                f"{argument}: expected --section.name and a value, such as --server.port 8080 (from command line)"
            )
        elif equals:
            values.append((name, text))
        else:
            values.append((name, queue.pop(0) if queue and not queue[0].startswith("--") else None))
    texts = {name: text or "" for name, text in values}
    layer = Layer(_with_new_models(COMMAND_LINE, texts, models), problems=problems)
    for name, value in values:
        origin = f"command line --{name}"
        if value is None and not _can_be_without_value(name, layer.models):
            problems.append(f"--{name}: expected a value, got none; write --{name}=VALUE (from command line)")
        else:
            layer.put_named(COMMAND_LINE, name, "true" if value is None else value, origin)
    return layer


def _with_new_models(notation: Notation, texts: Mapping[str, str], models: Models) -> dict[str, str | None]:
    """Return the models, with those that a name ending in `engine` adds or changes."""
    engine_by_model = dict(models)
    start, end = notation.plain("models") + notation.separator, notation.separator + notation.plain("engine")
    for name, text in texts.items():
        middle = name[len(start) : -len(end)]
        if not (notation.plain(name).startswith(start) and notation.plain(name).endswith(end) and middle):
            continue
        existing = next((model for model in models if notation.plain(model) == notation.plain(middle)), None)
        below = any(notation.plain(middle).startswith(notation.plain(model) + notation.separator) for model in models)
        # Otherwise `...ARGS__ENGINE` of a model that does not exist would add a model called `x__args`.
        if existing or (not below and (text in engines.names() or notation.separator not in middle)):
            engine_by_model[existing or (middle.lower() if notation is ENVIRONMENT else middle)] = text
    return engine_by_model


def _can_be_without_value(name: str, models: Models) -> bool:
    try:
        _, shape = COMMAND_LINE.find(name, models)
    except ValueError:
        return True  # `put_named` reports the name
    return isinstance(shape, Leaf) and (shape.free or shape.expected.startswith("true"))


def _shallow_first(item: tuple[str, str]) -> tuple[int, str]:
    return item[0].count(ENVIRONMENT.separator), item[0]
