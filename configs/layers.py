"""The sources of settings: recipes, secret files, environment and command line, each read into a layer.

It exists to know what each source looks like, so that nothing else has to. It merges nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from configs import document, engines
from configs.document import MalformedError
from configs.layer import SECRET_ORIGIN, Layer, Spread
from configs.names import COMMAND_LINE, ENVIRONMENT, SECRET_FILE, Models, Notation, nearest
from configs.shape import Leaf, tree

SECRETS_DIR = "LITPORT_SECRETS_DIR"
DOCKER_SECRETS = Path("/run/secrets")


def read_recipe(recipe: Path, models: Models) -> Layer:
    """Read one YAML file."""
    layer = Layer(dict(models))
    try:
        node = document.compose(recipe.read_text(encoding="utf-8"))
    except OSError as error:
        meant = nearest(recipe.name, [path.name for path in recipe.parent.glob("*.y*ml")])
        advice = f"did you mean {recipe.parent / meant}?" if meant else "give the path of a YAML file"
        layer.problems.append(f"{recipe}: expected a recipe, got {error.strerror}; {advice} (from command line)")
    except UnicodeDecodeError:
        layer.problems.append(
            f"{recipe}: expected text in UTF-8, got other bytes; save it as UTF-8 (from command line)"
        )
    except MalformedError as error:
        layer.problems.append(f"{recipe}:{error.line}: expected YAML: {error}; check indentation and quotes")
    else:
        if node is not None:
            Spread(layer, str(recipe), lines=True).put(node, tree(), ())
    return layer


def read_models(named: Mapping[str, Mapping[str, Any]], models: Models) -> Layer:
    """Read models given as values, which is how the command line names a model that no recipe has."""
    layer = Layer(dict(models))
    layer.put_text(
        (),
        tree(),
        yaml.safe_dump({"models": {name: dict(model) for name, model in named.items()}}, sort_keys=False),
        "command line",
    )
    return layer


def read_secrets(environ: Mapping[str, str], models: Models) -> Layer:
    """Read the files `litport_*` in $LITPORT_SECRETS_DIR, or else in /run/secrets where that exists."""
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
    """Read every LITPORT_ variable; those of Litport's own start-up are left alone."""
    prefix = ENVIRONMENT.prefix
    given = {name: text for name, text in environ.items() if name.startswith(prefix) and name != SECRETS_DIR}
    names = {name.removeprefix(prefix): text for name, text in sorted(given.items(), key=_shallow_first)}
    layer = Layer(_with_new_models(ENVIRONMENT, names, models))
    for name, text in names.items():
        layer.put_named(ENVIRONMENT, name, text, f"environment {prefix}{name}")
    return layer


def split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Part a command line into the command's own words and the overrides of settings, whichever come first.

    An override begins with `--` and has a dot in its name; it takes the next word with it unless it has an `=` or that
    word begins with `--`.
    """
    own: list[str] = []
    overrides: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--") or "." not in word.partition("=")[0]:
            own.append(word)
            continue
        overrides.append(word)
        if "=" not in word and rest and not rest[0].startswith("--"):
            overrides.append(rest.pop(0))
    return own, overrides


def read_command_line(overrides: Sequence[str], models: Models) -> Layer:
    """Read `--path value`, `--path=value` and, where true makes sense, a bare `--path`; the last one counts."""
    given: list[tuple[str, str | None]] = []
    problems = []
    rest = list(overrides)
    while rest:
        word = rest.pop(0)
        name, equals, text = word.removeprefix(COMMAND_LINE.prefix).partition("=")
        if not word.startswith(COMMAND_LINE.prefix) or not name:
            problems.append(
                f"{word}: expected --section.name and a value, such as --server.port 8080 (from command line)"
            )
        elif equals:
            given.append((name, text))
        else:
            given.append((name, rest.pop(0) if rest and not rest[0].startswith("--") else None))
    layer = Layer(_with_new_models(COMMAND_LINE, {name: text or "" for name, text in given}, models), problems=problems)
    for name, value in given:
        origin = f"command line --{name}"
        if value is None and not _may_be_bare(name, layer.models):
            problems.append(f"--{name}: expected a value, got none; write --{name}=VALUE (from command line)")
        else:
            layer.put_named(COMMAND_LINE, name, "true" if value is None else value, origin)
    return layer


def _with_new_models(notation: Notation, names: Mapping[str, str], models: Models) -> dict[str, str | None]:
    """Return the models after those that a name ending in `engine` adds or changes."""
    after = dict(models)
    start, end = notation.plain("models") + notation.separator, notation.separator + notation.plain("engine")
    for name, text in names.items():
        middle = name[len(start) : -len(end)]
        if not (notation.plain(name).startswith(start) and notation.plain(name).endswith(end) and middle):
            continue
        known = next((model for model in models if notation.plain(model) == notation.plain(middle)), None)
        below = any(notation.plain(middle).startswith(notation.plain(model) + notation.separator) for model in models)
        # `...ARGS__ENGINE` of a model that is not there would otherwise add a model called `x__args`.
        if known or (not below and (text in engines.names() or notation.separator not in middle)):
            after[known or (middle.lower() if notation is ENVIRONMENT else middle)] = text
    return after


def _may_be_bare(name: str, models: Models) -> bool:
    try:
        _, shape = COMMAND_LINE.find(name, models)
    except ValueError:
        return True  # the name is the problem to report
    return isinstance(shape, Leaf) and (shape.free or shape.expected.startswith("true"))


def _shallow_first(item: tuple[str, str]) -> tuple[int, str]:
    return item[0].count(ENVIRONMENT.separator), item[0]
