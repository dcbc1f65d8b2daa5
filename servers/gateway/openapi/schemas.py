"""The schemas of several children in one OpenAPI document: each child's named after its model, and only those in use.

It also repairs what FastAPI documents wrongly of a child, where generators of clients or our own front door would
stumble over it. It refuses to change what a schema allows.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

SCHEMAS_AT = "#/components/schemas/"
_FORM = "application/x-www-form-urlencoded"
_MULTIPART = "multipart/form-data"
# Keywords whose value is somebody's data, and those whose keys are names of somebody's choice.
_DATA = frozenset({"const", "default", "enum", "example", "examples"})
_NAMED = frozenset({"$defs", "dependentSchemas", "mapping", "patternProperties", "properties"})


class Schemas:
    """Component schemas by name; `own` are those of the front door."""

    def __init__(self, own: Mapping[str, Any]) -> None:
        self._schemas: dict[str, Any] = dict(own)
        self._prefixes = {name.partition(".")[0] for name in own}

    def adopt(self, model: str, schemas: Mapping[str, Any]) -> Callable[[Any], Any]:
        """Take in a child's schemas; what is returned leads the references of any part of its document to them."""
        # What a component's name may consist of; two models may differ in nothing else.
        stem = prefix = re.sub(r"[^A-Za-z0-9._-]", "-", model)
        number = 1
        while prefix.lower() in self._prefixes:
            number += 1
            prefix = f"{stem}-{number}"
        self._prefixes.add(prefix.lower())

        def renamed(part: Any) -> Any:
            return _renamed(part, f"{SCHEMAS_AT}{prefix}.")

        for name, schema in schemas.items():
            self._schemas[f"{prefix}.{name}"] = renamed(schema)
        return renamed

    def name_models(self, schema: dict[str, Any], names: list[str]) -> None:
        """Say in the body's `model` which ones there are, in each alternative that the body has."""
        if "$ref" in schema:
            self.name_models(self._schemas[schema["$ref"].removeprefix(SCHEMAS_AT)], names)
        for alternative in [*schema.get("anyOf", []), *schema.get("oneOf", [])]:
            self.name_models(alternative, names)
        if "properties" in schema:
            words = {"description": f"One of {', '.join(names)}" if len(names) > 1 else f"It is {names[0]}"}
            own = schema["properties"].get("model", {"type": "string"})
            schema["properties"]["model"] = {**own, **words, "examples": names}

    def reached_from(self, paths: Mapping[str, Any]) -> dict[str, Any]:
        """The schemas that the paths refer to, and what those refer to in turn."""
        reached: set[str] = set()
        waiting: list[Any] = [paths]
        while waiting:
            new = {name for name in _references(waiting.pop()) if name in self._schemas} - reached
            reached |= new
            waiting += [self._schemas[name] for name in new]
        return {name: schema for name, schema in self._schemas.items() if name in reached}


def cleaned(operation: dict[str, Any]) -> dict[str, Any]:
    """A copy of the operation in which a form is what the front door takes.

    FastAPI documents a form with a file as one of the kind that can hold none.
    """
    body = operation.get("requestBody")
    if not body:
        return operation
    content = {_MULTIPART if kind == _FORM else kind: media for kind, media in body.get("content", {}).items()}
    return {**operation, "requestBody": {**body, "content": content}}


def _renamed(part: Any, prefix: str, *, keys_are_names: bool = False) -> Any:
    """A copy in which every reference to a schema of the child's, a discriminator's too, leads to its new name.

    Titles are left out: FastAPI derives them from parameters, fields and functions, and a generator would name classes
    by them, with a number where two fields of different models are called alike.
    """
    if isinstance(part, Mapping):
        return {
            key: value
            if key in _DATA and not keys_are_names
            else _renamed(value, prefix, keys_are_names=key in _NAMED and not keys_are_names)
            for key, value in part.items()
            if keys_are_names or key != "title"
        }
    if isinstance(part, list):
        return [_renamed(item, prefix) for item in part]
    if isinstance(part, str) and part.startswith(SCHEMAS_AT):
        return prefix + part.removeprefix(SCHEMAS_AT)
    return part


def _references(part: Any) -> Iterator[str]:
    """The names of the schemas that are referred to."""
    if isinstance(part, Mapping):
        for value in part.values():
            yield from _references(value)
    elif isinstance(part, list):
        for item in part:
            yield from _references(item)
    elif isinstance(part, str) and part.startswith(SCHEMAS_AT):
        yield part.removeprefix(SCHEMAS_AT)
