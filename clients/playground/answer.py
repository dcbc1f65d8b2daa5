"""A streamed answer of a language model: its text as it arrives, and its speed.

Times are those of this client. The number of tokens comes from the model's `usage`, as a chunk need not be one token.
"""

import json
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any

from clients.playground.platform import Platform, Problem
from clients.playground.request import Request

# Between two updates: what a person takes for at once, and more for a long text, all of which a page draws anew.
_UPDATE_EVERY_S = 0.1
_UPDATE_EVERY_S_PER_CHARACTER = 2e-5


@dataclass
class Answer:
    """The progress of an answer. Times are seconds since the request was sent; None: not known, or not yet."""

    text: str = ""
    first_s: float | None = None
    last_s: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    finish_reason: str | None = None

    @property
    def tokens_per_s(self) -> float | None:
        """The number of tokens after the first, over the time from the first piece of text to the last."""
        if self.first_s is None or self.last_s is None or not self.output_tokens or self.output_tokens < 2:
            return None
        return (self.output_tokens - 1) / (self.last_s - self.first_s) if self.last_s > self.first_s else None


def chat(model: str, messages: Sequence[dict[str, str]], options: dict[str, Any]) -> Request:
    """The request for the next message of a conversation. A question without an answer is left out."""
    roles = [message["role"] for message in messages[1:]] + [None]
    turns = [message for message, after in zip(messages, roles, strict=True) if not message["role"] == after == "user"]
    return Request("/v1/chat/completions", {"model": model, "messages": turns, **options, **_STREAM})


def completion(model: str, prompt: str, options: dict[str, Any]) -> Request:
    """The request to continue a text, without a chat template."""
    return Request("/v1/completions", {"model": model, "prompt": prompt, **options, **_STREAM})


_STREAM = {"stream": True, "stream_options": {"include_usage": True}}


async def stream(platform: Platform, request: Request, key: str | None) -> AsyncGenerator[Answer, None]:
    """The same answer repeatedly as it grows, and at its end. Raises Problem; the answer keeps its text so far."""
    answer, begin_s, update_s, is_complete = Answer(), time.perf_counter(), 0.0, False
    async with platform.open(request, key) as response:
        async for line in response.aiter_lines():
            if not line.startswith("data:"):
                continue
            data = line.removeprefix("data:").strip()
            if data == "[DONE]":
                is_complete = True
                break
            _add(_event(data), answer, time.perf_counter() - begin_s)
            if time.perf_counter() - update_s > _UPDATE_EVERY_S + len(answer.text) * _UPDATE_EVERY_S_PER_CHARACTER:
                update_s = time.perf_counter()
                yield answer
    yield answer
    if not is_complete:
        raise Problem("The answer broke off before its end.")


def _event(data: str) -> dict[str, Any]:
    try:
        event = json.loads(data)
    except ValueError:
        event = None
    if not isinstance(event, dict):
        raise Problem(f"The answer is not such as OpenAI's: {data[:100]}")
    return event


def _add(event: dict[str, Any], answer: Answer, now_s: float) -> None:
    if event.get("error"):
        message = event["error"].get("message") if isinstance(event["error"], dict) else event["error"]
        raise Problem(f"The answer broke off: {message}")
    for choice in event.get("choices", []):
        piece = (choice.get("delta") or {}).get("content") or choice.get("text") or ""
        if piece:
            answer.first_s = now_s if answer.first_s is None else answer.first_s
            answer.last_s = now_s
            answer.text += piece
        answer.finish_reason = choice.get("finish_reason") or answer.finish_reason
    usage = event.get("usage") or {}
    answer.input_tokens = usage.get("prompt_tokens") or answer.input_tokens
    answer.output_tokens = usage.get("completion_tokens") or answer.output_tokens
