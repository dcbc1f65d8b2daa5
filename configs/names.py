"""How each source writes the name of a setting, and what was probably meant by a name that does not exist.

It exists so that `server.port`, `--server.port` and `LITPORT_SERVER__PORT` are looked up by one walk over the shape of
the tree. It reads no values.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from configs.shape import Group, Leaf, Shape, Table, TreePath, holds_secrets, sounds_secret, tree

Models = Mapping[str, str | None]
"""The known models and the engine of each, where it is known."""


class UnknownNameError(ValueError):
    """No setting has this name; `path` is the part that exists, `key` the first part that does not."""

    def __init__(self, path: TreePath, shape: Shape, key: str, rest: str = "") -> None:
        super().__init__(".".join((*path, key)))
        self.path, self.shape, self.key, self.rest = path, shape, key, rest


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

        Raises UnknownNameError, or another ValueError for a key that is refused or fits several models.
        """
        path: TreePath = ()
        shape: Shape = tree()
        rest = name
        while rest:
            if isinstance(shape, Table) and isinstance(shape.value, Group):
                model = self._model_before(rest, models)
                if model is None:
                    raise UnknownNameError(path, shape, *self._split(rest))
                path, shape, rest = (*path, model), variant(shape.value, models[model]), rest[len(model) :]
                rest = rest.removeprefix(self.separator)
            elif isinstance(shape, Table):
                assert isinstance(shape.value, Leaf)
                if not shape.value.free:
                    return (*path, rest), shape.value
                key, rest = self._split(rest)
                path, shape = (*path, *spell(shape, self.free(key))), shape.value
            elif isinstance(shape, Group):
                key, rest = self._split(rest)
                if self.fold(key) not in shape.fields:
                    raise UnknownNameError(path, shape, key, rest)
                path, shape = (*path, self.fold(key)), shape.fields[self.fold(key)]
            elif shape.free:
                keys = rest.split(self.separator)
                return (*path, *map(self.free, keys)), shape
            else:
                raise UnknownNameError(path, shape, rest)
        return path, shape

    def explain(self, unknown: ValueError, models: Models) -> str:
        """Return what is wrong with a name that `find` or `spell` refused, and what was probably meant."""
        if not isinstance(unknown, UnknownNameError):
            return str(unknown)
        if isinstance(unknown.shape, Leaf):
            return f"no such setting; {self.write(unknown.path)} is one value, with nothing below it"
        name = self.write((*unknown.path, unknown.key, *([unknown.rest] if unknown.rest else [])))
        meant = self._meant(unknown, name, models)
        hint = f"did you mean {meant}?" if meant != name else "write it nested, one name below the other"
        if isinstance(unknown.shape, Table):
            known = f"the models are {', '.join(models)}" if models else "there are no models"
            adds = self.write((*unknown.path, unknown.key, "engine"))
            return f"no such model; {known}; {hint if meant else f'{adds} would add one'}"
        if meant:
            return f"no such setting; {hint}"
        return f"no such setting; {'.'.join(unknown.path) or 'the top'} has {', '.join(unknown.shape.fields)}"

    def _meant(self, unknown: UnknownNameError, name: str, models: Models) -> str | None:
        paths = [path for path in _paths(tree(), models) if path[:2] == unknown.path[:2] or len(unknown.path) < 2]
        by_letters = {_letters(self.write(path)): self.write(path) for path in paths}
        if same := by_letters.get(_letters(name)):
            return same
        if sibling := self._sibling(unknown, models):
            return sibling
        if isinstance(unknown.shape, Table):
            return None
        last = self.fold((unknown.rest or unknown.key).split(self.separator)[-1])
        alike = [self.write(path) for path in paths if path[-1] == last]
        return nearest(name, alike, cutoff=0.0) or (None if unknown.path else nearest(name, by_letters.values(), 0.7))

    def _sibling(self, unknown: UnknownNameError, models: Models) -> str | None:
        """Return the name with its wrong part replaced by what is most like it, if that makes a name that exists."""
        siblings = models if isinstance(unknown.shape, Table) else getattr(unknown.shape, "fields", {})
        parts = [unknown.key, *(unknown.rest.split(self.separator) if unknown.rest else [])]
        for length in range(1, len(parts) + 1):  # a model's name may hold the separator, and so may a wrong name
            wrong = self.plain(self.separator.join(parts[:length]))
            if sibling := nearest(wrong, map(self.plain, siblings)):
                fixed = self.write((*unknown.path, sibling, *parts[length:]))
                if self._exists(fixed, models):
                    return fixed
        return None

    def _exists(self, name: str, models: Models) -> bool:
        try:
            self.find(name.removeprefix(self.prefix), models)
        except ValueError:
            return False
        return True

    def _split(self, rest: str) -> tuple[str, str]:
        key, _, rest = rest.partition(self.separator)
        return key, rest

    def _model_before(self, rest: str, models: Models) -> str | None:
        """Return the model whose name begins `rest`: the longest, because names may hold the separator."""
        matching = [
            name for name in models if (self.plain(rest) + self.separator).startswith(self.plain(name) + self.separator)
        ]
        if len({self.plain(name) for name in matching}) < len(matching):
            raise ValueError(f"the name fits more than one model: {', '.join(matching)}; set it in a recipe")
        return max(matching, key=len, default=None)


RECIPE = Notation("", ".")
COMMAND_LINE = Notation("--", ".", fold=lambda key: key.replace("-", "_"))
ENVIRONMENT = Notation("LITPORT_", "__", str.lower, str.lower, lambda part: re.sub(r"[^A-Z0-9]", "_", part.upper()))
SECRET_FILE = replace(ENVIRONMENT, prefix="litport_", plain=lambda part: re.sub(r"[^a-z0-9]", "_", part.lower()))


def variant(group: Group, engine: str | None) -> Group:
    """Return the fields a model of this engine has; of every engine, where it is not known."""
    return group.variants.get(engine or "", group)


def spell(table: Table, key: str) -> TreePath:
    """Return the path of a free key below its table; a dot in a free JSON key goes one level down, as in vLLM."""
    if not table.spell:
        return (key,)
    return tuple(table.spell(key).split("."))


def nearest(word: str, options: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the option most like the word, or None when none is like it; 1.0 is the same, 0.0 takes any."""
    by_letters = {option.lower().replace("_", "-"): option for option in options}
    found = difflib.get_close_matches(word.lower().replace("_", "-"), by_letters, 1, cutoff)
    return by_letters[found[0]] if found else None


def may_be_secret(unknown: ValueError, name: str) -> bool:
    """Whether the value under a name that was refused may be a secret in the wrong place."""
    shape = unknown.shape if isinstance(unknown, UnknownNameError) and unknown.path else None
    return sounds_secret(name) or (shape is not None and holds_secrets(shape))


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _paths(shape: Shape, models: Models, path: TreePath = ()) -> Iterator[TreePath]:
    if isinstance(shape, Group):
        for name, part in shape.fields.items():
            yield from _paths(part, models, (*path, name))
    elif isinstance(shape, Table) and isinstance(shape.value, Group):
        for name in models:
            yield from _paths(variant(shape.value, models[name]), models, (*path, name))
    else:
        yield path
