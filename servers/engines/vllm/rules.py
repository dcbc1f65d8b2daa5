"""What vLLM does in silence or says of itself, told to its callers: the `Rules` of its models."""

from collections.abc import Mapping
from typing import Any

from servers.engines.fields import Fields
from servers.engines.vllm import messages
from servers.errors import ApiError

# Fields that vLLM once read, or that others read, and that change the answer.
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


class VllmRules:
    """The rules of the model `name`, by the OpenAPI document of its process.

    `stores_responses` says whether the process keeps answers of /v1/responses.
    """

    def __init__(self, name: str, openapi: Mapping[str, Any], *, stores_responses: bool) -> None:
        self._name = name
        self._fields = Fields(openapi, "vLLM", _SUCCESSORS)
        self._stores_responses = stores_responses

    def review(self, path: str, document: Mapping[str, Any], *, refuse_unknown: bool) -> Mapping[str, str]:
        """See `Rules`."""
        if path == "/v1/responses" and document.get("store") is True and not self._stores_responses:
            message = (
                "store: expected false or nothing, got true: responses are not stored here "
                "(models.NAME.env.VLLM_ENABLE_RESPONSES_API_STORE)"
            )
            raise ApiError(400, message, code="unsupported_field", param="store")
        return self._fields.review(path, document, refuse_unknown=refuse_unknown)

    def explain(self, error: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
        """See `Rules`."""
        return messages.explain(error, self._name), messages.whole(error)
