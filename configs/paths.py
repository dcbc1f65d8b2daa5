"""Paths in a recipe: they start at the recipe's folder, as in Compose, or else at the working directory.

Which of the two it is depends on where the file is. A path that is in neither stays as it was written.
"""

import dataclasses
import re
from pathlib import Path
from typing import Any

from configs.layer import Layer
from configs.names import RECIPE
from configs.shape import Leaf

# Text of any setting that can only be a path; `source: org/name` is a name of the hub. A class can follow a file.
_PATH = re.compile(r"(\.\.?/.*?|[^:]*\.(?:py|gguf))(:\w+)?", re.DOTALL)


def start_at_recipe(layer: Layer, recipe: Path) -> None:
    """Make the paths in a recipe's layer absolute; note those that only the working directory has."""
    folder = recipe.parent.absolute()
    if folder == Path.cwd():
        return
    for path, value in layer.values.items():
        _, shape = RECIPE.find(".".join(path), layer.models)
        is_path = isinstance(shape, Leaf) and shape.expected.startswith("a path")
        if value.secret and not is_path:
            continue
        notes: list[str] = []
        placed = _place(value.value, folder, is_path, notes)
        layer.values[path] = dataclasses.replace(value, value=placed)
        layer.notes += [f"{RECIPE.write(path)}: {note} (from {value.origin})" for note in notes]


def absolute(value: Any) -> Any:
    """The value with the paths in it absolute that start at the working directory."""
    return _place(value, Path.cwd(), False, [])


def _place(value: Any, folder: Path, is_path: bool, notes: list[str]) -> Any:
    if isinstance(value, dict):
        return {key: _place(item, folder, is_path, notes) for key, item in value.items()}
    if isinstance(value, list):
        return [_place(item, folder, is_path, notes) for item in value]
    match = _PATH.fullmatch(value) if isinstance(value, str) else None
    if not value or not isinstance(value, str) or not (match or is_path):
        return value
    written, rest = (match[1], match[2] or "") if match else (value, "")
    file = Path(written)
    if file.is_absolute() or written.startswith("~"):
        return value
    try:
        if (folder / file).exists():
            return f"{(folder / file).absolute()}{rest}"
        if file.exists():
            notes.append(f"{written} is not in {folder}, and was taken from the working directory")
            return f"{file.absolute()}{rest}"
    except (OSError, ValueError):  # no path after all: too long, or with a null byte
        pass
    return value
