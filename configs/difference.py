"""The difference of two settings trees: models that come, go, change or get another name, and settings that change."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import SecretStr

from configs.layer import describe_value
from configs.model import ModelSettings
from configs.settings import LitportSettings
from configs.shape import TreePath, sounds_secret

_NOT_SET = "not set"
_MISSING = object()


@dataclass(frozen=True)
class Change:
    """One setting with its value before and after, as text in which secrets are masked."""

    path: TreePath
    before: str
    after: str

    def __str__(self) -> str:
        return f"{'.'.join(self.path)}: {self.before} -> {self.after}"


@dataclass(frozen=True)
class Difference:
    """What is other in the second tree. `renamed` has the new name by the old one, `changed` the changes by model.

    `sections` are the changes outside of the models.
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)
    changed: Mapping[str, tuple[Change, ...]] = field(default_factory=dict)
    sections: tuple[Change, ...] = ()


def difference(
    before: LitportSettings, after: LitportSettings, is_secret: Callable[[TreePath], bool] = lambda _: False
) -> Difference:
    """Compare two trees. A model is renamed where its settings but for those of requests stand under a new name.

    `is_secret` says of which further settings the value is masked.
    """
    added = [name for name in after.models if name not in before.models]
    removed = [name for name in before.models if name not in after.models]
    renamed: dict[str, str] = {}
    for name in removed:
        twins = (twin for twin in added if twin not in renamed.values())
        twin = next((twin for twin in twins if is_same_process(before.models[name], after.models[twin])), None)
        if twin is not None:
            renamed[name] = twin
    changed = {}
    for name in before.models.keys() & after.models.keys():
        if changes := tuple(_changes(before.models[name], after.models[name], ("models", name), is_secret)):
            changed[name] = changes
    sections = [
        change
        for section in ("server", "limits", "auth", "telemetry", "cluster")
        for change in _changes(getattr(before, section), getattr(after, section), (section,), is_secret)
    ]
    return Difference(
        tuple(name for name in added if name not in renamed.values()),
        tuple(name for name in removed if name not in renamed),
        renamed,
        {name: changed[name] for name in after.models if name in changed},
        tuple(sections),
    )


def is_same_process(before: ModelSettings, after: ModelSettings) -> bool:
    """Whether processes that were started with the one are as they would be with the other."""
    return type(before) is type(after) and before.model_dump(exclude=set(before.in_place)) == after.model_dump(
        exclude=set(after.in_place)
    )


def _changes(before: Any, after: Any, path: TreePath, is_secret: Callable[[TreePath], bool]) -> Iterator[Change]:
    old, new = (dict(_leaves(section.model_dump(), path)) for section in (before, after))
    of_other_kinds = type(before) is not type(after)  # settings of the one engine mean nothing to the other
    for leaf in dict.fromkeys((*old, *new)):
        values = old.get(leaf, _MISSING), new.get(leaf, _MISSING)
        if values[0] == values[1] or (of_other_kinds and _MISSING in values):
            continue
        masked = sounds_secret(leaf[-1]) or is_secret(leaf)
        yield Change(leaf, *(_text(value, masked) for value in values))


def _leaves(value: Any, path: TreePath) -> Iterator[tuple[TreePath, Any]]:
    if isinstance(value, dict):
        for key, below in value.items():
            yield from _leaves(below, (*path, key))
    else:
        yield path, value


def _text(value: Any, masked: bool) -> str:
    if value is _MISSING:
        return _NOT_SET
    return describe_value(value, secret=isinstance(value, SecretStr) or (masked and value not in (None, [])))
