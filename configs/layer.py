"""One layer of settings: values by path, each with its origin, and the problems of its source.

All sources (recipe, variable, secret file, argument) become layers. A layer collects problems as lines and raises
nothing. Pydantic checks the values after the layers are merged.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import yaml

from configs import document
from configs.document import MalformedError, Node
from configs.names import RECIPE, Notation, UnknownNameError, may_be_secret, spell, variant
from configs.shape import Group, Leaf, Shape, Table, TreePath, holds_secrets, sounds_secret

SECRET_ORIGIN = "secret file "  # noqa: S105  # the word that begins an origin, not a secret
MASK = "**********"


@dataclass(frozen=True)
class Value:
    """The value of one leaf in one source."""

    value: Any
    origin: str
    secret: bool = False


@dataclass
class Layer:
    """The content of one source: values by path, the models of this and weaker sources, one line for each problem.

    `notes` say what the user should know of values that can be used.
    """

    models: dict[str, str | None]
    values: dict[TreePath, Value] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def put(self, path: TreePath, leaf: Leaf, value: Any, origin: str) -> None:
        """Set one leaf; a later value replaces an earlier one."""
        secret = leaf.secret or origin.startswith(SECRET_ORIGIN) or sounds_secret(path[-1])
        self.values[path] = Value(value, origin, secret)

    def put_text(self, path: TreePath, shape: Shape, text: str, origin: str) -> None:
        """Set a part of the tree from text: the value of a typed scalar as it is, YAML for anything else."""
        if isinstance(shape, Leaf) and origin.startswith(SECRET_ORIGIN):  # not YAML: it may begin with any character
            lines = [line.strip() for line in text.splitlines() if line.strip()]
            self.put(path, shape, lines if shape.listed else text, origin)
            return
        if isinstance(shape, Leaf) and shape.scalar and not shape.free:
            self.put(path, shape, None if shape.optional and text in ("null", "~") else text, origin)
            return
        try:
            node = document.compose(text)
            if isinstance(shape, Leaf) and shape.listed and isinstance(node, yaml.ScalarNode):
                self.put(path, shape, [node.value], origin)
            elif node is not None:
                NodeReader(self, origin).read(node, shape, path)
            elif isinstance(shape, Leaf):
                self.put(path, shape, "", origin)
        except MalformedError as error:
            name = RECIPE.write(path)
            secret = origin.startswith(SECRET_ORIGIN) or holds_secrets(shape) or sounds_secret(name)
            actual = describe_value(text, secret)
            self.problems.append(f"{name}: expected YAML, got {actual}: {error}; quote text (from {origin})")

    def put_named(self, notation: Notation, name: str, text: str, origin: str) -> None:
        """Set the value of a name without its prefix; a name that no setting has is a problem."""
        try:
            path, shape = notation.find(name, self.models)
        except ValueError as error:
            reason = notation.explain(error, self.models)
            actual = describe_value(text, may_be_secret(error, name) or origin.startswith(SECRET_ORIGIN))
            self.problems.append(f"{notation.prefix}{name}: {reason} (value {actual}, from {origin})")
        else:
            self.put_text(path, shape, text, origin)

    def to_mapping(self) -> dict[str, Any]:
        """Return the values as the nested mapping that pydantic reads."""
        root: dict[str, Any] = {}
        for path, value in self.values.items():
            mapping = root
            for part in path[:-1]:
                below = mapping.get(part)
                if not isinstance(below, dict):
                    below = mapping[part] = {}
                mapping = below
            mapping[path[-1]] = value.value
        return root


def describe_value(value: Any, secret: bool = False) -> str:
    """Return a value for one line of a message: quoted, cut to 80 characters, and masked where it is a secret."""
    if secret:
        return MASK
    if value is None:
        return "null"
    if isinstance(value, dict):
        return "a mapping"
    text = repr(value) if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= 80 else text[:77] + "..."


class NodeReader:
    """Reads a YAML node into a layer, along the shape of the tree down to its leaves."""

    def __init__(self, layer: Layer, origin: str, lines: bool = False) -> None:
        self.layer, self._origin, self._lines = layer, origin, lines

    def read(self, node: Node, shape: Shape, path: TreePath) -> None:
        """Set every leaf that the node has for this part of the tree."""
        if isinstance(shape, Leaf):
            self._leaf(node, shape, path)
        elif isinstance(node, yaml.MappingNode):
            self._mapping(node, shape, path)
        elif node.tag != document.NULL or (isinstance(shape, Group) and shape.variants):
            scalar = isinstance(node, yaml.ScalarNode)
            actual = describe_value(node.value, bool(path) and holds_secrets(shape)) if scalar else "a list"
            name = RECIPE.write(path) or "settings"
            self._problem(node, f"{name}: expected a mapping of names to values, got {actual}")

    def _leaf(self, node: Node, leaf: Leaf, path: TreePath) -> None:
        if leaf.free and isinstance(node, yaml.MappingNode) and node.value:
            self._mapping(node, Table(leaf), path)
        elif leaf.free:
            try:
                self.layer.put(path, leaf, document.yaml_value(node), self._place(node))
            except MalformedError as error:
                self._problem(node, f"{RECIPE.write(path)}: expected plain YAML: {error}; quote text")
        else:
            self.layer.put(path, leaf, document.text_value(node), self._place(node))

    def _mapping(self, node: yaml.MappingNode, shape: Group | Table, path: TreePath) -> None:
        keys: dict[TreePath, Node] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == document.MERGE:
                name = RECIPE.write(path) or "settings"
                self._problem(key, f"{name}: expected a name before the colon, got a merge or a compound key")
                continue
            try:
                below, part = self._step(key.value, value, shape, path)
                if below in keys:
                    line = document.line_of(keys[below])
                    raise ValueError(f"set before, as {keys[below].value} on line {line}; keep one of the two")
            except ValueError as error:
                actual = describe_value(document.text_value(value), may_be_secret(error, key.value))
                reason = RECIPE.explain(error, self.layer.models)
                self._problem(key, f"{RECIPE.write((*path, key.value))}: {reason}", f"value {actual}, ")
                continue
            keys[below] = key
            self.read(value, part, below)

    def _step(self, key: str, value: Node, shape: Group | Table, path: TreePath) -> tuple[TreePath, Shape]:
        if isinstance(shape, Group):
            if key not in shape.fields:
                raise UnknownNameError(path, shape, key)
            return (*path, key), shape.fields[key]
        if isinstance(shape.value, Group) and shape.value.variants:
            pairs = value.value if isinstance(value, yaml.MappingNode) else []
            engine = next((item.value for name, item in pairs if name.value == "engine"), self.layer.models.get(key))
            self.layer.models[key] = engine if isinstance(engine, str) else None
            return (*path, key), variant(shape.value, self.layer.models[key])
        return (*path, *spell(shape, key)), shape.value

    def _problem(self, node: Node, text: str, value: str = "") -> None:
        self.layer.problems.append(f"{text} ({value}from {self._place(node)})")

    def _place(self, node: Node) -> str:
        return f"{self._origin}:{document.line_of(node)}" if self._lines else self._origin
