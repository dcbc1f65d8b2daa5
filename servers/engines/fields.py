"""The fields of a request that an engine does not read.

Engines answer 200 to fields that they do not know. Those that change the answer are refused, and the error names what
takes their place; any other is named to the caller. What a route reads is what the engine's own schema of it says.
"""

from collections.abc import Collection, Mapping
from typing import Any

from configs.names import nearest
from servers.errors import ApiError

HEADER = "x-litport-ignored-fields"

_MOST_NAMES = 20


class Fields:
    """The fields that each route of the engine `engine_name` reads, by its OpenAPI document.

    `successors` are fields whose loss changes the answer, each with what takes its place. Where `reads_additional`, a
    schema with `additionalProperties` reads every field; vLLM's have it, and ignore what they do not name.
    """

    def __init__(
        self,
        openapi: Mapping[str, Any],
        engine_name: str,
        successors: Mapping[str, str],
        *,
        reads_additional: bool = False,
    ) -> None:
        schemas = openapi.get("components", {}).get("schemas", {})
        self._names = {
            path: frozenset(_names(body["schema"], schemas, reads_additional))
            for path, item in openapi["paths"].items()
            if (body := _json_body(item)) and "schema" in body
        }
        self._engine_name = engine_name
        self._successors = successors

    def review(self, path: str, document: Mapping[str, Any], *, refuse_unknown: bool) -> Mapping[str, str]:
        """Headers for the answer, which name the fields that the engine ignores.

        Raises ApiError 400 for an ignored field that would change the answer, and with `refuse_unknown` for any.
        """
        names = self._names.get(path)
        if not names or names.issuperset(document):  # the engine does not say what it reads, or reads all
            return {}
        unknown = [name for name, value in document.items() if name not in names and value is not None]
        for name in unknown:
            if successor := self._successors.get(name):
                message = f"{name}: {self._engine_name} does not read this field, and would answer as without it; send "
                raise ApiError(400, message + successor, code="unsupported_field", param=name)
        if unknown and refuse_unknown:
            message = f"{_describe(unknown[0], names)}: {path} does not read this field (limits.unknown_fields)"
            raise ApiError(400, message, code="unknown_field", param=_printable(unknown[0]))
        return {HEADER: ", ".join(_describe(name, names) for name in unknown[:_MOST_NAMES])} if unknown else {}


def _describe(name: str, names: Collection[str]) -> str:
    candidate = nearest(name, names, cutoff=0.75)
    return _printable(name) + (f" (did you mean {candidate}?)" if candidate else "")


def _printable(name: str) -> str:
    """A name of the request as ASCII without commas, at most 64 characters."""
    return ascii(name[:64])[1:-1].replace(",", ";")[:64]


def _json_body(item: Mapping[str, Any]) -> Mapping[str, Any]:
    content: Mapping[str, Any] = item.get("post", {}).get("requestBody", {}).get("content", {})
    body: Mapping[str, Any] = content.get("application/json", {})
    return body


def _names(schema: Mapping[str, Any], schemas: Mapping[str, Any], reads_additional: bool) -> set[str]:
    """The properties of a schema and of its alternatives; none where it does not list them."""
    if "$ref" in schema:
        return _names(schemas[schema["$ref"].rpartition("/")[2]], schemas, reads_additional)
    if reads_additional and schema.get("additionalProperties"):
        return set()
    alternatives = [*schema.get("anyOf", []), *schema.get("oneOf", []), *schema.get("allOf", [])]
    parts = (_names(part, schemas, reads_additional) for part in alternatives)
    return set(schema.get("properties", ())).union(*parts)
