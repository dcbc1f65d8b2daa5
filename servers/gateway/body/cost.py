"""What a request may cost, in tokens: an estimate for admission and rates, made without a tokenizer.

The estimate is one token for each four bytes of prompt text and for each token id, at least one, plus the output limit
where the request has one. Pictures and sound count as nothing. Without an output limit, the output counts as nothing.
"""

from collections.abc import Mapping
from typing import Any

_BYTES_PER_TOKEN = 4
_PROMPTS = ("prompt", "messages", "input", "system", "instructions", "tools", "text", "texts", "query", "documents")
_MEDIA = frozenset({"audio_url", "file", "image", "image_url", "input_audio", "source", "video_url"})
_OUTPUTS = ("max_completion_tokens", "max_output_tokens", "max_tokens")


def tokens(document: Mapping[str, Any]) -> int:
    """Tokens that the request may take, prompt and answer together."""
    text_bytes = sum(_text_bytes(document[name]) for name in _PROMPTS if name in document)
    # Which of several a route reads is the engine's affair.
    outputs = max((int(document[name]) for name in _OUTPUTS if _is_count(document.get(name))), default=0)
    return max(1, text_bytes // _BYTES_PER_TOKEN) + outputs * choices(document) * prompt_count(document)


def _text_bytes(prompt: Any) -> int:
    size = 0
    queue = [prompt]
    while queue:
        value = queue.pop()
        if isinstance(value, str):
            # It has no surrogates (see strict_json), so UTF-8 can encode it.
            size += len(value) if value.isascii() else len(value.encode())
        elif isinstance(value, list):
            if value and isinstance(value[0], int):  # token ids
                size += _BYTES_PER_TOKEN * len(value)
            else:
                queue += value
        elif isinstance(value, dict):
            queue += [part for key, part in value.items() if key not in _MEDIA]
    return size


def prompt_count(document: Mapping[str, Any]) -> int:
    """How many prompts a completion has, or how many conversations a batch of chats."""
    prompt, messages = document.get("prompt"), document.get("messages")
    if isinstance(messages, list) and messages and isinstance(messages[0], list):
        return len(messages)
    return len(prompt) if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int) else 1


def choices(document: Mapping[str, Any]) -> int:
    """How many answers each prompt gets."""
    return max([int(document[name]) for name in ("n", "best_of") if _is_count(document.get(name))], default=1)


def _is_count(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 1
