"""How each source writes the name of a setting, and the likely intention behind a name that does not exist.

One walk over the shape of the tree looks up `server.port`, `--server.port` and `LITPORT_SERVER__PORT`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from configs.shape import Group, Leaf, Shape, Table, TreePath, holds_secrets, sounds_secret, tree

Models = Mapping[str, str | None]
"""The models by name, each with its engine, or None where a source has not set it yet."""


class UnknownNameError(ValueError):
    """No setting has this name; `path` is the part that exists, `key` the first part that does not."""

    def __init__(self, path: TreePath, shape: Shape, key: str, tail: str = "") -> None:
        super().__init__(".".join((*path, key)))
        self.path, self.shape, self.key, self.tail = path, shape, key, tail


@dataclass(frozen=True)
class Notation:
    """One way to write a path: prefix, separator, how fields and free keys are read, how a part is written."""

    prefix: str
    separator: str
    fold: Callable[[str], str] = str
    free: Callable[[str], str] = str
    plain: Callable[[str], str] = str

    def write(self, path: Iterable[str]) -> str:
        """Return the name of a path, such as `LITPORT_SERVER__PORT`."""
        return self.prefix + self.separator.join(self.plain(part) for part in path)

    def find(self, name: str, models: Models) -> tuple[TreePath, Shape]:
        """Return path and shape of a name without its prefix.

        Raises UnknownNameError, or another ValueError for a key that is not allowed or fits several models.
        """
        path: TreePath = ()
        shape: Shape = tree()
        tail = name
        while tail:
            if isinstance(shape, Table) and isinstance(shape.value, Group) and not shape.value.variants:
                key, tail = self._split_entry(tail, shape.value)
                path, shape = (*path, self.free(key)), shape.value
            elif isinstance(shape, Table) and isinstance(shape.value, Group):
                model = self._leading_model(tail, models)
                if model is None:
                    raise UnknownNameError(path, shape, *self._split(tail))
                path, shape, tail = (*path, model), variant(shape.value, models[model]), tail[len(model) :]
                tail = tail.removeprefix(self.separator)
            elif isinstance(shape, Table):
                assert isinstance(shape.value, Leaf)
                if not shape.value.free:
                    return (*path, tail), shape.value
                key, tail = self._split(tail)
                path, shape = (*path, *spell(shape, self.free(key))), shape.value
            elif isinstance(shape, Group):
                key, tail = self._split(tail)
                if self.fold(key) not in shape.fields:
                    raise UnknownNameError(path, shape, key, tail)
                path, shape = (*path, self.fold(key)), shape.fields[self.fold(key)]
            elif shape.free:
                keys = tail.split(self.separator)
                return (*path, *map(self.free, keys)), shape
            else:
                raise UnknownNameError(path, shape, tail)
        return path, shape

    def explain(self, unknown: ValueError, models: Models) -> str:
        """Return what is wrong with a name that `find` or `spell` rejected, and the likely intention."""
        if not isinstance(unknown, UnknownNameError):
            return str(unknown)
        if isinstance(unknown.shape, Leaf):
            return f"no such setting; {self.write(unknown.path)} is one value, with nothing below it"
        name = self.write((*unknown.path, unknown.key, *([unknown.tail] if unknown.tail else [])))
        suggestion = self._suggestion(unknown, name, models)
        hint = f"did you mean {suggestion}?" if suggestion != name else "write it nested, one name below the other"
        if isinstance(unknown.shape, Table):
            available = f"the models are {', '.join(models)}" if models else "there are no models"
            engine = self.write((*unknown.path, unknown.key, "engine"))
            return f"no such model; {available}; {hint if suggestion else f'{engine} would add one'}"
        if suggestion:
            return f"no such setting; {hint}"
        return f"no such setting; {'.'.join(unknown.path) or 'the top'} has {', '.join(unknown.shape.fields)}"

    def _suggestion(self, unknown: UnknownNameError, name: str, models: Models) -> str | None:
        paths = [path for path in _paths(tree(), models) if path[:2] == unknown.path[:2] or len(unknown.path) < 2]
        by_letters = {_letters(self.write(path)): self.write(path) for path in paths}
        if same := by_letters.get(_letters(name)):
            return same
        if sibling := self._sibling(unknown, models):
            return sibling
        if isinstance(unknown.shape, Table):
            return None
        last = self.fold((unknown.tail or unknown.key).split(self.separator)[-1])
        alike = [self.write(path) for path in paths if path[-1] == last]
        return nearest(name, alike, cutoff=0.0) or (None if unknown.path else nearest(name, by_letters.values(), 0.7))

    def _sibling(self, unknown: UnknownNameError, models: Models) -> str | None:
        """Return the name with its wrong part replaced by the nearest one, if that name exists."""
        siblings = models if isinstance(unknown.shape, Table) else getattr(unknown.shape, "fields", {})
        parts = [unknown.key, *(unknown.tail.split(self.separator) if unknown.tail else [])]
        for length in range(1, len(parts) + 1):  # a model's name may hold the separator, and so may a wrong name
            wrong = self.plain(self.separator.join(parts[:length]))
            if sibling := nearest(wrong, map(self.plain, siblings)):
                correction = self.write((*unknown.path, sibling, *parts[length:]))
                if self._exists(correction, models):
                    return correction
        return None

    def _exists(self, name: str, models: Models) -> bool:
        try:
            self.find(name.removeprefix(self.prefix), models)
        except ValueError:
            return False
        return True

    def _split(self, name: str) -> tuple[str, str]:
        key, _, tail = name.partition(self.separator)
        return key, tail

    def _split_entry(self, name: str, entry: Group) -> tuple[str, str]:
        """The free key that begins the name, which may hold the separator, and the tail from a field of the entry."""
        parts = name.split(self.separator)
        ends = (end for end in range(1, len(parts)) if self.fold(parts[end]) in entry.fields)
        end = next(ends, 1)
        return self.separator.join(parts[:end]), self.separator.join(parts[end:])

    def _leading_model(self, tail: str, models: Models) -> str | None:
        """Return the model whose name begins `tail`: the longest, because names may hold the separator."""
        text = self.plain(tail) + self.separator
        matching = [name for name in models if text.startswith(self.plain(name) + self.separator)]
        if len({self.plain(name) for name in matching}) < len(matching):
            raise ValueError(f"the name fits more than one model: {', '.join(matching)}; set it in a recipe")
        return max(matching, key=len, default=None)


RECIPE = Notation("", ".")
COMMAND_LINE = Notation("--", ".", fold=lambda key: key.replace("-", "_"))
ENVIRONMENT = Notation("LITPORT_", "__", str.lower, str.lower, lambda part: re.sub(r"[^A-Z0-9]", "_", part.upper()))
SECRET_FILE = replace(ENVIRONMENT, prefix="litport_", plain=lambda part: re.sub(r"[^a-z0-9]", "_", part.lower()))


def variant(group: Group, engine: str | None) -> Group:
    """Return the fields of a model with this engine; those of all engines where it is None."""
    return group.variants.get(engine or "", group)


def spell(table: Table, key: str) -> TreePath:
    """Return the path of a free key below its table; a dot in a free JSON key goes one level down, as in vLLM."""
    if not table.spell:
        return (key,)
    return tuple(table.spell(key).split("."))


def nearest(word: str, options: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the option nearest to the word, or None. At a `cutoff` of 1.0 they must be equal, at 0.0 any option is."""
    by_letters = {option.lower().replace("_", "-"): option for option in options}
    matches = difflib.get_close_matches(word.lower().replace("_", "-"), by_letters, 1, cutoff)
    return by_letters[matches[0]] if matches else None


def may_be_secret(unknown: ValueError, name: str) -> bool:
    """Whether the value of a rejected name may be a secret in the wrong place."""
    shape = unknown.shape if isinstance(unknown, UnknownNameError) and unknown.path else None
    return sounds_secret(name) or (shape is not None and holds_secrets(shape))


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _paths(shape: Shape, models: Models, path: TreePath = ()) -> Iterator[TreePath]:
    if isinstance(shape, Group):
        for name, part in shape.fields.items():
            yield from _paths(part, models, (*path, name))
    elif isinstance(shape, Table) and isinstance(shape.value, Group) and shape.value.variants:
        for name in models:
            yield from _paths(variant(shape.value, models[name]), models, (*path, name))
    else:
        yield path
