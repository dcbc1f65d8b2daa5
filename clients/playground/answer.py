"""A streamed answer of a language model: its text as it comes, and how quickly it came.

Times are this client's. Tokens are counted by the model's own `usage`; nothing here takes a chunk for a token.
"""

import json
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any

from clients.playground.platform import Platform, Problem
from clients.playground.request import Request

_SHOWN_EVERY_S = 0.05  # quicker than anybody reads, and far fewer updates than tokens


@dataclass
class Answer:
    """How far an answer has come. Times are seconds since it was asked for; None: not yet, or not said."""

    text: str = ""
    first_s: float | None = None
    last_s: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    finish_reason: str | None = None

    @property
    def tokens_per_s(self) -> float | None:
        """Tokens after the first over the time from the first piece of text to the last."""
        if self.first_s is None or self.last_s is None or not self.output_tokens or self.output_tokens < 2:
            return None
        return (self.output_tokens - 1) / (self.last_s - self.first_s) if self.last_s > self.first_s else None


def chat(model: str, messages: Sequence[dict[str, str]], options: dict[str, Any]) -> Request:
    """The request for the next message of a conversation. A question that was never answered is left out."""
    following = [message["role"] for message in messages[1:]] + [None]
    said = [
        message for message, after in zip(messages, following, strict=True) if not message["role"] == after == "user"
    ]
    return Request("/v1/chat/completions", {"model": model, "messages": said, **options, **_STREAMED})


def completion(model: str, prompt: str, options: dict[str, Any]) -> Request:
    """The request to continue a text as it stands."""
    return Request("/v1/completions", {"model": model, "prompt": prompt, **options, **_STREAMED})


_STREAMED = {"stream": True, "stream_options": {"include_usage": True}}


async def stream(platform: Platform, request: Request, key: str | None) -> AsyncGenerator[Answer, None]:
    """The same answer again and again as it grows, and at its end. Raises Problem; what came until then stays."""
    answer, asked_s, shown_s, ended = Answer(), time.perf_counter(), 0.0, False
    async with platform.open(request, key) as response:
        async for line in response.aiter_lines():
            if not line.startswith("data:"):
                continue
            data = line.removeprefix("data:").strip()
            if data == "[DONE]":
                ended = True
                break
            _take(_event(data), answer, time.perf_counter() - asked_s)
            if time.perf_counter() - shown_s > _SHOWN_EVERY_S:
                shown_s = time.perf_counter()
                yield answer
    yield answer
    if not ended:
        raise Problem("The answer broke off before its end.")


def _event(data: str) -> dict[str, Any]:
    try:
        event = json.loads(data)
    except ValueError:
        event = None
    if not isinstance(event, dict):
        raise Problem(f"The answer is not such as OpenAI's: {data[:100]}")
    return event


def _take(event: dict[str, Any], answer: Answer, now_s: float) -> None:
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
