"""The output of `litport config`: every setting with its value and origin, secrets masked, and the JSON schema."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

from configs.layer import MASK, SECRET_ORIGIN
from configs.loading import LoadedSettings
from configs.settings import LitportSettings
from configs.shape import TreePath, sounds_secret

DIM, PLAIN = "\x1b[2m", "\x1b[0m"


def show(loaded: LoadedSettings) -> None:
    """Print every setting; on a terminal, those with their default value are dim."""
    sys.stdout.write(listing(loaded, colour=sys.stdout.isatty()) + "\n")


def listing(loaded: LoadedSettings, *, colour: bool = False) -> str:
    """Return one line for each setting: name, value, origin."""
    rows = []
    for path, value in _leaves(loaded.settings.model_dump(mode="json")):
        origin = _origin(loaded, path)
        secret = (origin.startswith(SECRET_ORIGIN) or sounds_secret(path[-1])) and value not in (None, [])
        text = json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value
        rows.append((".".join(path), MASK if secret else text, origin))
    widths = [min(max(len(row[column]) for row in rows), 60) for column in (0, 1)]
    lines = [f"{name:{widths[0]}}  {text:{widths[1]}}  {origin}" for name, text, origin in rows]
    if colour:
        lines = [f"{DIM}{line}{PLAIN}" if line.endswith("  default") else line for line in lines]
    return "\n".join(lines)


def schema() -> dict[str, Any]:
    """Return the JSON schema of a recipe, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **LitportSettings.model_json_schema()}


def _leaves(value: Any, path: TreePath = ()) -> Iterator[tuple[TreePath, Any]]:
    if isinstance(value, dict) and value:
        for key, below in value.items():
            yield from _leaves(below, (*path, key))
    else:
        yield path, value


def _origin(loaded: LoadedSettings, path: TreePath) -> str:
    """Return the origin of a leaf, or of the mapping above it where a source sets the whole mapping."""
    candidates = (path[:length] for length in range(len(path), 0, -1))
    return next((loaded.origins[above] for above in candidates if above in loaded.origins), "default")
