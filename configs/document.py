"""YAML text as nodes with line numbers, and nodes as plain values.

Origins need line numbers, and errors must fit one line. A typed setting is read as the text that the user wrote, so it
means the same in a recipe, in the environment and on the command line. Tags build no Python objects, and no dates.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

Node = yaml.Node
NULL = "tag:yaml.org,2002:null"
DEEPEST = 50
MERGE = "tag:yaml.org,2002:merge"


class MalformedError(Exception):
    """The text is not YAML; the message is one line, `line` counts from 1."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = {  # noqa: RUF012  # PyYAML's own class attribute
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def compose(text: str) -> Node | None:
    """Return the root node, or None for an empty document; raises MalformedError."""
    try:
        node = yaml.compose(text, _Loader)
    except yaml.MarkedYAMLError as error:
        raise _malformed_error(error) from error
    except yaml.YAMLError as error:
        raise MalformedError("found a character that YAML does not allow", 1) from error
    except RecursionError as error:
        raise MalformedError(f"nested more than {DEEPEST} deep", 1) from error
    if node is not None:
        _measure(node)
    return node


def line_of(node: Node) -> int:
    """Return the line on which a node begins, from 1."""
    return int(node.start_mark.line) + 1


def text_value(node: Node) -> Any:
    """Return the value for a setting that has a type: text as written, None, and lists and mappings of these."""
    if isinstance(node, yaml.SequenceNode):
        return [text_value(item) for item in node.value]
    if isinstance(node, yaml.MappingNode):
        return {str(text_value(key)): text_value(value) for key, value in node.value}
    return None if node.tag == NULL else node.value


def yaml_value(node: Node) -> Any:
    """Return the value for a setting of any type, as YAML reads it; raises MalformedError."""
    loader = _Loader("")
    try:
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        raise _malformed_error(error) from error
    except ValueError as error:  # SafeLoader passes impossible numbers such as 0o9 to int()
        raise MalformedError(f"found a value that YAML cannot read: {error}", line_of(node)) from error


def _measure(node: Node, depth: int = 1) -> None:
    if depth > DEEPEST:
        raise MalformedError(f"nested more than {DEEPEST} deep, or an alias that holds itself", line_of(node))
    if not isinstance(node, yaml.ScalarNode):
        for item in node.value:
            for below in item if isinstance(item, tuple) else (item,):
                _measure(below, depth + 1)


def _malformed_error(error: yaml.MarkedYAMLError) -> MalformedError:
    mark = error.problem_mark or error.context_mark
    # An unquoted secret that begins with * or & reads as the name of an alias or an anchor: do not repeat it.
    problem = re.sub(r"(alias|anchor) .*", r"\1", error.problem or "cannot be read")
    return MalformedError(" ".join(problem.split()), mark.line + 1 if mark else 1)
