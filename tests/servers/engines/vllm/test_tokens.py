"""The count of tokens beside an answer: vLLM's middleware adds it, the connection takes it out again."""

import asyncio
from collections.abc import MutableMapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from servers.engines.connection import Reply, TokenCount
from servers.engines.stream import Stream
from servers.engines.vllm.child.token_counts import TokenCounts
from servers.engines.vllm.tokens import split_count

EVENTS = (b'data: {"a": 1}\n\n', b'data: {"b": ": litport-tokens 1 2"}\n\n', b"data: [DONE]\n\n")
USAGE = SimpleNamespace(prompt_tokens=37, completion_tokens=8)


def _answer(kind: bytes, *parts: bytes, usage: object = USAGE) -> tuple[list[tuple[bytes, bytes]], list[bytes]]:
    """Headers and parts of an application's answer as the middleware sends them on."""
    messages: list[MutableMapping[str, Any]] = []

    async def app(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if kind == b"application/json":  # vLLM counts before a whole answer, and at the end of a stream
            scope["state"]["request_metadata"] = SimpleNamespace(final_usage_info=usage)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
        for part in parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        scope["state"]["request_metadata"] = SimpleNamespace(final_usage_info=usage)
        await send({"type": "http.response.body", "body": b""})

    async def keep(message: MutableMapping[str, Any]) -> None:
        messages.append(message)

    asyncio.run(TokenCounts(app)({"type": "http"}, None, keep))
    return messages[0]["headers"], [message["body"] for message in messages[1:]]


def _split(headers: Sequence[tuple[bytes, bytes]], parts: Sequence[bytes]) -> tuple[Reply, list[bytes]]:
    """The reply and its chunks, when the first part comes with the head and each of the others later."""

    async def read() -> tuple[Reply, list[bytes]]:
        stream = Stream(lambda: None, lambda _: None, 1 << 20)
        first, *others = parts
        stream.push(first)
        reply = Reply(200, headers, stream, stream.close)
        split_count(reply)
        chunks: list[bytes] = []

        async def take() -> None:
            chunks.extend([chunk async for chunk in reply.chunks])

        reading = asyncio.create_task(take())
        for part in others:
            await asyncio.sleep(0)
            stream.push(part)
        stream.end()
        await reading
        return reply, chunks

    return asyncio.run(read())


def test_a_whole_answer_is_unchanged_and_counted() -> None:
    headers, parts = _answer(b"application/json", b'{"choices": []}')
    reply, chunks = _split(headers, parts)
    assert b"".join(chunks) == b'{"choices": []}'
    assert reply.headers == [(b"content-type", b"application/json")]
    assert reply.tokens == TokenCount(37, 8)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 16, 50, 1000])
def test_a_stream_is_unchanged_and_counted_however_its_bytes_are_cut(size: int) -> None:
    headers, parts = _answer(b"text/event-stream; charset=utf-8", *EVENTS)
    whole = b"".join(parts)
    reply, chunks = _split(headers, [whole[at : at + size] for at in range(0, len(whole), size)])
    assert b"".join(chunks) == b"".join(EVENTS)
    assert all(chunk.endswith(b"\n\n") for chunk in chunks), "whole events only"
    assert reply.tokens == TokenCount(37, 8)


def test_what_vllm_does_not_count_is_unknown() -> None:
    headers, parts = _answer(b"text/event-stream", *EVENTS, usage=None)
    reply, chunks = _split(headers, parts)
    assert (b"".join(chunks), reply.tokens) == (b"".join(EVENTS), TokenCount())
    headers, parts = _answer(b"application/json", b"{}", usage=None)
    assert _split(headers, parts)[0].tokens is None


def test_a_stream_that_breaks_within_an_event_gives_what_there_is() -> None:
    _, chunks = _split([(b"content-type", b"text/event-stream")], [b"data: 1\n\ndata: ", b"2"])
    assert chunks == [b"data: 1\n\n", b"data: 2"]
