"""What LitServe's specs do in silence, told to callers: the `Rules` of LitAPIs on OpenAI's routes.

A spec drops the fields that its schema does not have, answers 500 to two values that OpenAI's API refuses, and has no
word for two choices of tools that OpenAI's API takes.
"""

from collections.abc import Mapping
from typing import Any

from servers.engines.fields import Fields
from servers.errors import ApiError

_SUCCESSORS = {"functions": "tools", "function_call": "tool_choice"}
# The last event of a stream has the usage whatever the request asks.
_NEEDLESS = frozenset({"stream_options"})


class SpecRules:
    """The rules of a LitAPI, by the OpenAPI document of its process."""

    def __init__(self, openapi: Mapping[str, Any]) -> None:
        self._fields = Fields(openapi, "LitServe's spec", _SUCCESSORS, reads_additional=True)

    def review(self, path: str, document: Mapping[str, Any], *, refuse_unknown: bool) -> Mapping[str, str]:
        """See `Rules`."""
        if "n" in document and document["n"] is None:
            raise ApiError(400, "n: expected a whole number, got null", code="invalid_type", param="n")
        if document.get("input") == []:
            raise ApiError(
                400, "input: expected one text or more, got an empty list", code="invalid_value", param="input"
            )
        _check_tool_choice(document.get("tool_choice"))
        heeded = {name: value for name, value in document.items() if name not in _NEEDLESS}
        return self._fields.review(path, heeded, refuse_unknown=refuse_unknown)

    def explain(self, error: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
        """See `Rules`."""
        return error, ""


def _check_tool_choice(choice: Any) -> None:
    """Raises ApiError 400 for the choices of OpenAI's API that the spec's schema does not have."""
    if choice == "required":
        came = '"required"; "any" is what this spec calls it'
    elif isinstance(choice, Mapping):
        came = "an object; this spec cannot force one tool: offer only that one in `tools`"
    else:
        return
    message = f'tool_choice: expected "auto", "none" or "any", which LitServe\'s spec knows, got {came}'
    raise ApiError(400, message, code="unsupported_value", param="tool_choice")
