"""What vLLM does in silence or says of itself, told to its callers: the `Rules` of its models."""

from collections.abc import Mapping
from typing import Any

from servers.engines.vllm import messages
from servers.engines.vllm.fields import Fields


class VllmRules:
    """The rules of the model `name`, by the OpenAPI document of its process."""

    def __init__(self, name: str, openapi: Mapping[str, Any], *, stores_responses: bool) -> None:
        self._name = name
        self._fields = Fields(openapi, stores_responses=stores_responses)

    def review(self, path: str, document: Mapping[str, Any], *, refuse_unknown: bool) -> Mapping[str, str]:
        """See `Rules`."""
        return self._fields.review(path, document, refuse_unknown=refuse_unknown)

    def explain(self, error: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
        """See `Rules`."""
        return messages.explain(error, self._name), messages.whole(error)
