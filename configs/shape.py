"""The shape of the settings tree, read from the pydantic models: sections, mappings with free keys, and leaves.

All sources look up names in it, and messages and the reference page describe values by it. It holds no values.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import annotated_types
from pydantic import BaseModel, JsonValue, SecretStr
from pydantic.fields import FieldInfo

from configs.model import Keys
from configs.settings import LitportSettings

TreePath = tuple[str, ...]


@dataclass(frozen=True)
class Leaf:
    """One value. `expected` describes the allowed values in words; a `free` leaf is any JSON, also set key by key.

    `section` is what a mapping in its place must be, where the value may also be one.
    """

    expected: str
    choices: tuple[str, ...] = ()
    scalar: bool = True
    listed: bool = False
    free: bool = False
    section: Group | None = None
    secret: bool = False
    optional: bool = False
    default: Any = None
    required: bool = False
    description: str = ""


@dataclass(frozen=True)
class Table:
    """A mapping whose keys the user chooses. `spell` returns the one spelling of a key, or raises ValueError."""

    value: Shape
    spell: Callable[[str], str] | None = None
    description: str = ""


@dataclass(frozen=True)
class Group:
    """A section. That of a model has a variant for each engine, and in `fields` the fields of all variants."""

    fields: Mapping[str, Shape]
    description: str = ""
    variants: Mapping[str, Group] = field(default_factory=dict)


Shape = Leaf | Table | Group


@cache
def tree() -> Group:
    """Return the shape of LitportSettings."""
    return _group(LitportSettings)


def walk(shape: Shape, path: TreePath = ()) -> Iterator[tuple[TreePath, Leaf]]:
    """Yield every leaf with its path; a free key is `<name>`, the fields of the variants follow each other."""
    if isinstance(shape, Leaf):
        yield path, shape
    elif isinstance(shape, Table):
        yield from walk(shape.value, (*path, "<name>"))
    else:
        for name, part in shape.fields.items():
            yield from walk(part, (*path, name))


def holds_secrets(shape: Shape) -> bool:
    """Whether any leaf below is a secret; a value in the wrong place there is then masked, too.

    Of a model whose engine is not known, only a name that sounds like a secret's tells: most engines have none.
    """
    if isinstance(shape, Table):
        return holds_secrets(shape.value)
    if isinstance(shape, Group):
        return not shape.variants and any(map(holds_secrets, shape.fields.values()))
    return shape.secret


def sounds_secret(name: str) -> bool:
    """Whether a free or unknown name sounds like that of a secret: `HF_TOKEN`, `api-key`, `password`."""
    anywhere, last = r"auth|secrets?|pass(word|wd|phrase)?|credentials?", r"(api)?keys?|token"
    return re.search(rf"(^|[^a-z])(({anywhere})($|[^a-z])|({last})($|\.|__))", name.lower()) is not None


def _group(model: type[BaseModel]) -> Group:
    fields = {name: _field(info) for name, info in model.model_fields.items()}
    return Group(fields, (model.__doc__ or "").strip())


def _field(info: FieldInfo) -> Shape:
    shape = _shape(info.annotation, tuple(info.metadata), info.description or "")
    if not isinstance(shape, Leaf):
        return shape
    default = None if info.is_required() or info.default_factory else info.default
    return Leaf(**{**vars(shape), "default": default, "required": info.is_required()})


def _shape(annotation: Any, metadata: tuple[Any, ...], description: str) -> Shape:
    annotation, metadata = _bare(annotation, metadata)
    members = [_bare(member, ()) for member in typing.get_args(annotation)]
    if _is_model(annotation):
        return _group(annotation)
    if _is_union(annotation) and all(_is_model(member) for member, _ in members):
        groups = [_group(model) for model, _ in members]
        variants = {choice: group for group in groups for choice in group.fields["engine"].choices}  # type: ignore[union-attr]  # `engine` is the discriminator, a leaf
        fields = {name: part for group in reversed(groups) for name, part in group.fields.items()}
        engine = Leaf(
            "one of " + ", ".join(variants), tuple(variants), required=True, description="What runs the model."
        )
        return Group(fields | {"engine": engine}, description, variants)
    if typing.get_origin(annotation) is dict:
        keys = next((item for item in metadata if isinstance(item, Keys)), None)
        value, value_metadata = _bare(typing.get_args(annotation)[1], ())
        return Table(_shape(value, value_metadata, description), keys.spell if keys else None, description)
    section = next((_group(member) for member, _ in members if _is_model(member)), None)
    kinds = [annotation] if not _is_union(annotation) else [member for member, _ in members]
    return Leaf(
        expected=_expected(annotation, metadata),
        choices=tuple(
            choice for kind in kinds if typing.get_origin(kind) is Literal for choice in typing.get_args(kind)
        ),
        scalar=not any(typing.get_origin(kind) is list for kind in kinds),
        listed=typing.get_origin(annotation) is list,
        free=JsonValue in kinds or section is not None,
        section=section,
        secret=SecretStr in kinds or list[SecretStr] in kinds,
        optional=types.NoneType in kinds,
        description=description,
    )


def _expected(annotation: Any, metadata: tuple[Any, ...]) -> str:
    annotation, metadata = _bare(annotation, metadata)
    if _is_union(annotation):
        parts = [_expected(member, ()) for member in typing.get_args(annotation)]
        return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " or " + parts[-1]
    if typing.get_origin(annotation) is Literal:
        choices = [str(choice) for choice in typing.get_args(annotation)]
        return ("one of " if len(choices) > 1 else "") + ", ".join(choices)
    if typing.get_origin(annotation) is list:
        return f"a list, each item {_expected(typing.get_args(annotation)[0], ())}"
    if _is_model(annotation):
        return "a mapping of " + ", ".join(annotation.model_fields)
    text_by_type: dict[Any, str] = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "text",
        SecretStr: "text",
        Path: "a path",
        types.NoneType: "null",
    }
    return text_by_type.get(annotation, "any JSON value") + _bounds(metadata)


def _bounds(metadata: tuple[Any, ...]) -> str:
    low = next((item.ge for item in metadata if isinstance(item, annotated_types.Ge)), None)
    high = next((item.le for item in metadata if isinstance(item, annotated_types.Le)), None)
    above = next((item.gt for item in metadata if isinstance(item, annotated_types.Gt)), None)
    if any(isinstance(item, annotated_types.MinLen) for item in metadata):
        return " that is not empty"
    if low is not None and high is not None:
        return f" from {low} to {high}"
    if low is not None:
        return f" of {low} or more"
    return f" above {above}" if above is not None else ""


def _bare(annotation: Any, metadata: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
    """Unpack Annotated and Field into the bare type and one flat tuple of metadata."""
    while typing.get_origin(annotation) is Annotated:
        annotation, *more = typing.get_args(annotation)
        metadata = (*metadata, *more)
    flat: list[Any] = []
    for item in metadata:
        flat += item.metadata if isinstance(item, FieldInfo) else [item]
    return annotation, tuple(flat)


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _is_union(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (typing.Union, types.UnionType)
