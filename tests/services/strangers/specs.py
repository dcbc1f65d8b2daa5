"""LitAPIs with a spec of LitServe: chats and embeddings, as its documentation shows them."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import litserve as ls
import numpy as np
from fastapi import HTTPException
from litserve.specs.openai import ChatMessage
from litserve.specs.openai_embedding import EmbeddingRequest


class ChatAPI(ls.LitAPI):
    def __init__(self, **options: Any) -> None:
        super().__init__(spec=ls.OpenAISpec(), **options)

    def predict(self, x):
        if x[-1]["content"] == "fail":
            raise HTTPException(409, "no chat today")
        for word in str(x[-1]["content"]).split():
            yield f"{word} "

    def decode_request(self, request):
        return [message.model_dump() for message in request.messages]


class ChatUsageAPI(ChatAPI):
    """Its own encoding, with usage, a tool call, and the context that the spec fills."""

    def predict(self, x, context):
        yield from ["a", f"t={context['temperature']}"]

    def encode_response(self, output):
        for text in output:
            yield {"role": "assistant", "content": text, "prompt_tokens": 2, "completion_tokens": 1, "total_tokens": 3}
        call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        yield ChatMessage(role="assistant", content="", tool_calls=[call])


class AsyncChatAPI(ls.LitAPI):
    def __init__(self) -> None:
        super().__init__(spec=ls.OpenAISpec(), enable_async=True)

    async def decode_request(self, request):
        return request.messages[-1].content

    async def predict(self, x) -> AsyncIterator[str]:
        for word in x.split():
            await asyncio.sleep(0.001)
            yield word


class VectorsAPI(ls.LitAPI):
    def __init__(self, **options: Any) -> None:
        super().__init__(spec=ls.OpenAIEmbeddingSpec(), **options)

    def predict(self, x):
        texts = [x] if isinstance(x, str) else x
        return [[float(len(text)), 0.1, 1e-9] for text in texts]

    def encode_response(self, output):
        return {"embeddings": output, "prompt_tokens": 4, "total_tokens": 4}


class ToolsAPI(ls.LitAPI):
    """A chat that calls the tools that it is offered, and sees pictures."""

    def __init__(self) -> None:
        super().__init__(spec=ls.OpenAISpec())

    def predict(self, x, context):
        content = x[-1]["content"]
        if isinstance(content, list):
            yield ",".join(part["type"] for part in content)
        for tool in context["tools"] or ():
            call = {"id": "c1", "type": "function"}
            call["function"] = {"name": tool["function"]["name"], "arguments": '{"city": "Paris"}'}
            yield {"role": "assistant", "content": "", "tool_calls": [call]}
        if context["response_format"]:
            yield f'{{"format": "{context["response_format"]["type"]}"}}'

    def decode_request(self, request):
        return [message.model_dump() for message in request.messages]


class WordsAPI(ls.LitAPI):
    """A chat whose words are messages of its own, each with usage."""

    def __init__(self) -> None:
        super().__init__(spec=ls.OpenAISpec())

    def decode_request(self, request):
        return request.messages[-1].content

    def predict(self, x):
        yield from x.split()

    def encode_response(self, output) -> Iterator[Any]:
        for word in output:
            yield ChatMessage(role="assistant", content=word)


class OddChatAPI(ls.LitAPI):
    """A chat whose predict yields what is no message."""

    def __init__(self) -> None:
        super().__init__(spec=ls.OpenAISpec())

    def predict(self, x):
        yield {"words": 3}


class VectorBatchesAPI(ls.LitAPI):
    """Vectors in batches, as an array."""

    def __init__(self) -> None:
        super().__init__(spec=ls.OpenAIEmbeddingSpec(), max_batch_size=4, batch_timeout=0.01)

    def decode_request(self, request: EmbeddingRequest):
        return request.input

    def predict(self, x):
        return np.asarray([[len(text), 0.25] for text in x], dtype=np.float64)

    def encode_response(self, output):
        return {"embeddings": output}


class VectorContextAPI(ls.LitAPI):
    """Counts tokens for the spec's usage."""

    def __init__(self) -> None:
        super().__init__(spec=ls.OpenAIEmbeddingSpec())

    def predict(self, x, context):
        texts = [x] if isinstance(x, str) else x
        context["prompt_tokens"] = context["total_tokens"] = sum(len(text.split()) for text in texts)
        return [[float(len(text))] for text in texts]

    def encode_response(self, output, context):
        return {"embeddings": output, **context}
