"""What llama.cpp's server does in silence, told to its callers: the `Rules` of its models.

It answers 200 to fields that it does not read, and to `tools` where the chat template of the model has no place for
them. What it reads are its parameters, which it names in `/props`, and the fields below.
Source: `tools/server` of the llama.cpp in llama-cpp-python 0.3.36: server-schema, server-common and server-context.
"""

from collections.abc import Collection, Mapping
from typing import Any

from servers.engines.fields import Fields
from servers.engines.openai_document import CHAT, COMPLETIONS, EMBEDDINGS, openapi
from servers.errors import ApiError

_GENERATION = frozenset(
    (
        *("model", "stream", "stream_options", "max_tokens", "max_completion_tokens", "n", "n_cmpl", "stop", "seed"),
        *("temperature", "top_k", "top_p", "frequency_penalty", "presence_penalty", "logit_bias", "logprobs"),
        *("json_schema", "grammar", "grammar_lazy", "grammar_type", "grammar_triggers", "preserved_tokens"),
        *("cache_prompt", "n_cache_reuse", "id_slot", "n_indent", "dry_sequence_breakers", "t_max_predict_ms"),
        *("return_tokens", "return_progress", "response_fields", "sse_ping_interval", "verbose"),
        *("reasoning_control", "reasoning_budget_tokens", "reasoning_budget_message", "reasoning_budget_start_tag"),
        *("reasoning_budget_end_tag", "reasoning_budget_end_tags"),
    )
)
_CHAT = frozenset(
    (
        *("messages", "response_format", "top_logprobs", "add_generation_prompt", "continue_final_message"),
        *("chat_template_kwargs", "reasoning_effort", "thinking_budget_tokens", "parse_tool_calls"),
    )
)
_TOOLS = frozenset(("tools", "tool_choice", "parallel_tool_calls"))
_EMBEDDINGS = frozenset(("model", "input", "content", "encoding_format", "embd_normalize"))
_SUCCESSORS = {
    "tools": "them to a model whose chat template has a place for tools",
    "functions": "tools",
    "function_call": "tool_choice",
    "guided_json": "json_schema",
    "guided_choice": "grammar",
    "guided_regex": "grammar",
    "guided_grammar": "grammar",
    "structured_outputs": "json_schema or grammar",
    "response_format": "json_schema",
    "suffix": "a prompt with the model's own marks of a gap",
    "echo": "nothing, and put the prompt before the answer",
    "dimensions": "nothing, and cut the vectors",
}
# What an answer does not depend on.
_NEEDLESS = frozenset(("user", "metadata", "safety_identifier", "prompt_cache_key"))


def document(paths: Collection[str], properties: Mapping[str, Any]) -> dict[str, Any]:
    """The OpenAPI document of these paths, with all that the server reads by what it says of itself in `/props`."""
    parameters = properties.get("default_generation_settings", {}).get("params", {}).keys()
    capabilities = properties.get("chat_template_caps", {})
    tools = _TOOLS if capabilities.get("supports_tools", True) else frozenset[str]()
    generation = parameters | _GENERATION
    return openapi(paths, {CHAT: generation | _CHAT | tools, COMPLETIONS: generation, EMBEDDINGS: _EMBEDDINGS})


class LlamaCppRules:
    """The rules of a model, by its `document`."""

    def __init__(self, openapi: Mapping[str, Any]) -> None:
        self._fields = Fields(openapi, "llama.cpp's server", _SUCCESSORS)

    def review(self, path: str, document: Mapping[str, Any], *, refuse_unknown: bool) -> Mapping[str, str]:
        """See `Rules`."""
        choice = document.get("tool_choice")
        if isinstance(choice, Mapping):
            message = (
                'tool_choice: expected "auto", "none" or "required", got an object, which llama.cpp\'s server takes '
                'for "auto"; offer only that tool, with "required"'
            )
            raise ApiError(400, message, code="unsupported_value", param="tool_choice")
        needless = set(_NEEDLESS)
        if choice == "none" or not document.get("tools"):
            needless |= _TOOLS
        if not document.get("echo"):
            needless.add("echo")
        heeded = {name: value for name, value in document.items() if name not in needless}
        return self._fields.review(path, heeded, refuse_unknown=refuse_unknown)

    def explain(self, error: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
        """See `Rules`."""
        return error, ""
