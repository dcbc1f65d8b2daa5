"""The fields of a request that vLLM does not read.

vLLM answers 200 to fields that it does not know. Those that change the answer are refused, and the error names what
takes their place; any other is named to the caller. What a route reads is what vLLM's own schema of it says.
"""

from collections.abc import Collection, Mapping
from typing import Any

from configs.names import nearest
from servers.errors import ApiError

HEADER = "x-litport-ignored-fields"

_MOST_NAMES = 20
_SUCCESSORS = {
    "guided_json": 'structured_outputs: {"json": ...}',
    "guided_choice": 'structured_outputs: {"choice": ...}',
    "guided_regex": 'structured_outputs: {"regex": ...}',
    "guided_grammar": 'structured_outputs: {"grammar": ...}',
    "guided_whitespace_pattern": 'structured_outputs: {"whitespace_pattern": ...}',
    "guided_decoding_backend": "models.NAME.args.structured-outputs-config.backend in the settings",
    "functions": "tools",
    "function_call": "tool_choice",
    "conversation": "the earlier turns in input, as no conversations are stored here",
}


class Fields:
    """The fields that each of vLLM's routes reads, by its OpenAPI document.

    `stores_responses` says whether the process keeps answers of /v1/responses.
    """

    def __init__(self, openapi: Mapping[str, Any], *, stores_responses: bool) -> None:
        schemas = openapi.get("components", {}).get("schemas", {})
        self._names = {
            path: frozenset(_names(body["schema"], schemas))
            for path, item in openapi["paths"].items()
            if (body := _json_body(item)) and "schema" in body
        }
        self._stores_responses = stores_responses

    def review(self, path: str, document: Mapping[str, Any], *, refuse_unknown: bool) -> Mapping[str, str]:
        """Headers for the answer, which name the fields that vLLM ignores.

        Raises ApiError 400 for an ignored field that would change the answer, and with `refuse_unknown` for any.
        """
        if path == "/v1/responses" and document.get("store") is True and not self._stores_responses:
            message = (
                "store: expected false or nothing, got true: responses are not stored here "
                "(models.NAME.env.VLLM_ENABLE_RESPONSES_API_STORE)"
            )
            raise ApiError(400, message, code="unsupported_field", param="store")
        names = self._names.get(path)
        if not names or names.issuperset(document):  # vLLM does not say what it reads, or reads all
            return {}
        unknown = [name for name, value in document.items() if name not in names and value is not None]
        for name in unknown:
            if successor := _SUCCESSORS.get(name):
                message = f"{name}: vLLM does not read this field any more, and would answer as without it; send "
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


def _names(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> set[str]:
    """The properties of a schema and of its alternatives; none where it does not list them."""
    if "$ref" in schema:
        return _names(schemas[schema["$ref"].rpartition("/")[2]], schemas)
    alternatives = [*schema.get("anyOf", []), *schema.get("oneOf", []), *schema.get("allOf", [])]
    return set(schema.get("properties", ())).union(*(_names(part, schemas) for part in alternatives))
