"""The connection to vLLM: HTTP, with vLLM's count of tokens taken out of the answers, and its cuts told.

vLLM cuts a `max_tokens` that does not fit beside the prompt to what is left of the context, and says nothing. Such an
answer ends where prompt and output fill the context; with `on_overflow: refuse` its request is not sent.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from servers.engines.base import CanaryError, post
from servers.engines.connection import Reply, TokenCount
from servers.engines.http_connection import HttpConnection
from servers.engines.vllm.tokens import split_count
from servers.errors import ApiError

HEADER = b"x-litport-cut-answer"

# A token is at least a byte of the body; a chat template adds some of its own.
_TEMPLATE_TOKENS = 1024
# How vLLM counts the prompt of a route: another route, and the fields that it takes of the request (none: all).
_TOKENIZED = {
    "/v1/chat/completions": (
        "/tokenize",
        *("model", "messages", "tools", "add_generation_prompt", "continue_final_message", "chat_template"),
        *("chat_template_kwargs", "mm_processor_kwargs"),
    ),
    "/v1/completions": ("/tokenize", "model", "prompt", "add_special_tokens"),
    "/v1/messages": ("/v1/messages/count_tokens", "model", "messages", "system", "tools", "tool_choice", "thinking"),
    "/v1/responses": ("/v1/responses/render",),
}


# The fields that a route reads as the most tokens of an answer; the first that is there counts.
_LIMITS = {
    "/v1/chat/completions": ("max_completion_tokens", "max_tokens"),
    "/v1/completions": ("max_tokens",),
    "/v1/messages": ("max_tokens",),
    "/v1/responses": ("max_output_tokens",),
}


class _Request(msgspec.Struct):
    """What of a body says how long the answer may be."""

    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    max_output_tokens: int | None = None
    n: int | None = None


class VllmConnection(HttpConnection):
    """The connection of the model `name`. `context_tokens` is the length of its context, once that is known.

    `sample` is what the model computed before it slept, once it has.
    """

    def __init__(self, socket: Path, name: str, on_overflow: Literal["cut", "refuse"]) -> None:
        super().__init__(socket)
        self.context_tokens: int | None = None
        self.sample: Sequence[float] | None = None
        self._name = name
        self._refuses = on_overflow == "refuse"

    async def send(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None, query: str = ""
    ) -> Reply:
        """See `Connection`. Raises ApiError 400 for a request whose answer would be cut, where the settings say so."""
        if self._refuses and self.context_tokens is not None and path in _TOKENIZED:
            await self._refuse_overflow(path, body, self.context_tokens)
        reply = await super().send(method, path, body, headers, query)
        split_count(reply, lambda count: self._judge(count, path, body))
        tokens = reply.tokens
        if tokens is not None and tokens.cut_at is not None and tokens.output_tokens is not None:
            note = b"%d tokens of %d; the context is full" % (tokens.output_tokens, tokens.cut_at)
            reply.headers = [*reply.headers, (HEADER, note)]
        return reply

    def _judge(self, tokens: TokenCount, path: str, body: bytes) -> None:
        """Note in the count whether the context ended the answer before the request did."""
        total = (tokens.input_tokens or 0) + (tokens.output_tokens or 0)
        if self.context_tokens is not None and total >= self.context_tokens:
            limit = _limit(path, body)
            if limit is not None and limit[1] > (tokens.output_tokens or 0):
                tokens.cut_at = limit[1]

    async def _refuse_overflow(self, path: str, body: bytes, context_tokens: int) -> None:
        name, limit = _limit(path, body) or ("", 0)
        if not limit or len(body) + _TEMPLATE_TOKENS + limit <= context_tokens:
            return
        route, *fields = _TOKENIZED[path]
        document = msgspec.json.decode(body)
        parts = {field: document[field] for field in fields if field in document} if fields else document
        try:
            prompt_tokens = await self._count(route, parts)
        except CanaryError:  # vLLM says itself what is wrong with the request
            return
        if limit > context_tokens - prompt_tokens > 0:
            message = (
                f"{name}: expected at most {context_tokens - prompt_tokens} beside a prompt of {prompt_tokens} "
                f"tokens in a context of {context_tokens}, got {limit} (models.{self._name}.on_overflow)"
            )
            raise ApiError(400, message, code="context_overflow", param=name)

    async def _count(self, route: str, document: dict[str, object]) -> int:
        """The tokens of the longest prompt. Raises CanaryError where vLLM does not count them."""
        prompt = document.get("prompt")
        if not isinstance(prompt, list):
            answer = msgspec.json.decode(await post(self, route, document))
            if "token_ids" in answer:
                return len(answer["token_ids"])
            return int(answer["count"] if "count" in answer else answer["input_tokens"])
        if not prompt or isinstance(prompt[0], int):
            return len(prompt)
        prompts = [{**document, "prompt": part} for part in prompt]
        return max([await self._count(route, part) for part in prompts])


def _limit(path: str, body: bytes) -> tuple[str, int] | None:
    """The field with the most tokens of an answer, and its value; None: as many as fit, or several answers."""
    try:
        request = msgspec.json.decode(body, type=_Request)
    except msgspec.DecodeError:
        return None
    limits = ((name, getattr(request, name)) for name in _LIMITS.get(path, ()))
    return next((limit for limit in limits if limit[1] is not None), None) if (request.n or 1) == 1 else None
