"""The schemas of several children in one OpenAPI document: each is named after its model, and only those in use stay.

It also repairs what FastAPI documents wrongly, where it misleads generators of clients or contradicts the front door.
What a schema allows stays the same.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

SCHEMAS_AT = "#/components/schemas/"
_FORM = "application/x-www-form-urlencoded"
_MULTIPART = "multipart/form-data"
# Keywords whose value is data, and those whose keys are free names.
_DATA = frozenset({"const", "default", "enum", "example", "examples"})
_MAPS = frozenset({"$defs", "dependentSchemas", "mapping", "patternProperties", "properties"})


class Schemas:
    """Component schemas by name; it begins with those of the front door."""

    def __init__(self, schemas: Mapping[str, Any]) -> None:
        self._schemas: dict[str, Any] = dict(schemas)
        self._prefixes = {name.partition(".")[0] for name in schemas}

    def adopt(self, model: str, schemas: Mapping[str, Any]) -> Callable[[Any], Any]:
        """Add a child's schemas; the function returned renames the references in any part of its document to them."""
        # The characters that a component's name may have; two models' names may differ in nothing but the others.
        stem = prefix = re.sub(r"[^A-Za-z0-9._-]", "-", model)
        number = 1
        while prefix.lower() in self._prefixes:
            number += 1
            prefix = f"{stem}-{number}"
        self._prefixes.add(prefix.lower())

        def rename(part: Any) -> Any:
            return _rename(part, f"{SCHEMAS_AT}{prefix}.")

        for name, schema in schemas.items():
            self._schemas[f"{prefix}.{name}"] = rename(schema)
        return rename

    def name_models(self, schema: dict[str, Any], names: list[str]) -> None:
        """Name these models in the description of the body's `model`, in each alternative of the body."""
        if "$ref" in schema:
            self.name_models(self._schemas[schema["$ref"].removeprefix(SCHEMAS_AT)], names)
        for alternative in [*schema.get("anyOf", []), *schema.get("oneOf", [])]:
            self.name_models(alternative, names)
        if "properties" in schema:
            description = f"One of {', '.join(names)}" if len(names) > 1 else f"It is {names[0]}"
            model = schema["properties"].get("model", {"type": "string"})
            schema["properties"]["model"] = {**model, "description": description, "examples": names}

    def reachable_from(self, paths: Mapping[str, Any]) -> dict[str, Any]:
        """The schemas that the paths refer to, and what those refer to in turn."""
        reachable: set[str] = set()
        queue: list[Any] = [paths]
        while queue:
            new = {name for name in _references(queue.pop()) if name in self._schemas} - reachable
            reachable |= new
            queue += [self._schemas[name] for name in new]
        return {name: schema for name, schema in self._schemas.items() if name in reachable}


def fix_form(operation: dict[str, Any]) -> dict[str, Any]:
    """A copy of the operation in which a form is multipart, as the front door takes it.

    FastAPI documents a form with a file as urlencoded, which can hold no file.
    """
    body = operation.get("requestBody")
    if not body:
        return operation
    content = {_MULTIPART if kind == _FORM else kind: media for kind, media in body.get("content", {}).items()}
    return {**operation, "requestBody": {**body, "content": content}}


def _rename(part: Any, prefix: str, *, keys_are_names: bool = False) -> Any:
    """A copy in which every reference to a schema of the child, in discriminators too, has the new name.

    Titles are dropped: FastAPI derives them from parameters, fields and functions, and a generator would name classes
    by them, with a number where fields of two models have the same name.
    """
    if isinstance(part, Mapping):
        return {
            key: value
            if key in _DATA and not keys_are_names
            else _rename(value, prefix, keys_are_names=key in _MAPS and not keys_are_names)
            for key, value in part.items()
            if keys_are_names or key != "title"
        }
    if isinstance(part, list):
        return [_rename(item, prefix) for item in part]
    if isinstance(part, str) and part.startswith(SCHEMAS_AT):
        return prefix + part.removeprefix(SCHEMAS_AT)
    return part


def _references(part: Any) -> Iterator[str]:
    """The names of the schemas that this part refers to."""
    if isinstance(part, Mapping):
        for value in part.values():
            yield from _references(value)
    elif isinstance(part, list):
        for item in part:
            yield from _references(item)
    elif isinstance(part, str) and part.startswith(SCHEMAS_AT):
        yield part.removeprefix(SCHEMAS_AT)
