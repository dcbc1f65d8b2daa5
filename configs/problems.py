"""Pydantic's errors on the merged settings, as one line a setting: key, expectation, value, origin; secrets masked.

Pydantic's own report has several lines a setting, names Python types, and does not know the origins.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from configs.layer import Value, describe_value
from configs.model import SECTION_TAG
from configs.names import RECIPE, Models, UnknownNameError, nearest, variant
from configs.shape import Group, Leaf, Shape, Table, TreePath, tree

KEY = "[key]"
"""The last part of pydantic's location when the key of a mapping is wrong."""

MISSING = ("missing", "union_tag_not_found")


def describe(
    error: ValidationError, values: Mapping[TreePath, Value], models: Models, skip_missing: bool = False
) -> Iterator[str]:
    """Yield one line for each setting that is wrong, in the order of the tree.

    `skip_missing` leaves out missing settings, as one may be there under a wrong name that is a problem already.
    """
    paths: set[TreePath] = set()
    for details in error.errors(include_url=False):
        path, shape = _locate(details, models)
        if path in paths or (skip_missing and details["type"] in MISSING):
            continue
        paths.add(path)
        yield f"{RECIPE.write(path)}: {_explain(details, path, shape, values, models)}"


def _locate(details: ErrorDetails, models: Models) -> tuple[TreePath, Shape]:
    """Return the setting an error is about; pydantic's location also holds union tags, list indexes and markers."""
    shape: Shape = tree()
    path: TreePath = ()
    for part in map(str, details["loc"]):
        if part == KEY:
            break
        if isinstance(shape, Group) and shape.variants and part in shape.variants and part == models.get(path[-1]):
            shape = variant(shape, part)
        elif isinstance(shape, Group):
            path = (*path, part)
            if part not in shape.fields:
                break
            shape = shape.fields[part]
        elif isinstance(shape, Table):
            path = (*path, part)
            shape = shape.value
        elif shape.section is not None and part == SECTION_TAG:
            shape = shape.section
    if details["type"].startswith("union_tag"):
        assert isinstance(shape, Group)
        path, shape = (*path, "engine"), shape.fields["engine"]
    return path, shape


def _explain(
    details: ErrorDetails,
    path: TreePath,
    shape: Shape,
    values: Mapping[TreePath, Value],
    models: Models,
) -> str:
    value = values.get(path)
    origin = value.origin if value else _origin_near(path, values)
    empty = "nothing" if isinstance(shape, Leaf) else "a mapping"
    actual = describe_value(value.value, value.secret) if value else empty
    if details["type"] == "extra_forbidden" and isinstance(shape, Group):
        reason = RECIPE.explain(UnknownNameError(path[:-1], shape, path[-1]), models)
        return f"{reason} (value {actual}, from {origin})"
    if value is None and details["type"] in MISSING:
        expected = f"expected {shape.expected}. {shape.description}" if isinstance(shape, Leaf) else "set it"
        return f"missing; {expected} (from {origin})"
    if details["loc"][-1] == KEY:
        actual = repr(path[-1])
    if details["type"] == "value_error":
        is_whole = value is None and not isinstance(shape, Leaf) and details["loc"][-1] != KEY
        came = "" if is_whole else f"; got {actual}"
        return f"{details['ctx']['error']}{came} (from {origin})"
    if not isinstance(shape, Leaf):
        return f"expected a mapping of names to values, got {actual} (from {origin})"
    suggestion = nearest(str(value.value), shape.choices) if value and shape.choices and not value.secret else None
    hint = f"; did you mean {suggestion}?" if suggestion else ""
    return f"expected {shape.expected}, got {actual}{hint} (from {origin})"


def _origin_near(path: TreePath, values: Mapping[TreePath, Value]) -> str:
    """Return the origin of the nearest setting that a source sets: one below the path, or else one beside it."""
    while path:
        for candidate, value in values.items():
            if candidate[: len(path)] == path:
                return value.origin
        path = path[:-1]
    return "default"
