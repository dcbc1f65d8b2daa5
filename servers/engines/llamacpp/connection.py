"""The connection to llama.cpp's server: HTTP, with the tokens of a stream counted whatever its request asked for.

A whole answer has OpenAI's `usage`. A stream has it only where the request asks; but its last event names `timings`,
with the tokens of the prompt from the cache (`cache_n`) and computed (`prompt_n`), and those of the answer.
"""

import re
from collections.abc import Mapping

from servers.engines.connection import Reply, TokenCount
from servers.engines.http_connection import HttpConnection
from servers.engines.stream import Stream

_NAME = b'"timings"'
_TIMINGS = re.compile(rb'"timings": ?{"cache_n": ?(\d+),"prompt_n": ?(\d+),[^{}]*?"predicted_n": ?(\d+)')
_EVENT_BYTES = 1024


class LlamaCppConnection(HttpConnection):
    """One connection a request, as its base."""

    async def send(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None, query: str = ""
    ) -> Reply:
        """See `Connection`."""
        reply = await super().send(method, path, body, headers, query)
        content_type = next((value for name, value in reply.headers if name.lower() == b"content-type"), b"")
        if content_type.startswith(b"text/event-stream") and isinstance(reply.chunks, Stream):
            reply.tokens = TokenCount()
            reply.chunks.edit(_TimingsReader(reply.tokens))
        return reply


class _TimingsReader:
    """Reads the timings of a stream, and changes nothing."""

    def __init__(self, tokens: TokenCount) -> None:
        self._tokens = tokens
        self._end = b""

    def edit(self, chunk: bytes) -> bytes:
        """See `Editor`."""
        self._end = (self._end + chunk)[-_EVENT_BYTES:]
        if _NAME in chunk:
            self._read()
        return chunk

    def rest(self) -> bytes:
        """See `Editor`."""
        self._read()  # they may have come in two chunks
        return b""

    def _read(self) -> None:
        if match := _TIMINGS.search(self._end):
            cached, computed, output = map(int, match.groups())
            self._tokens.input_tokens, self._tokens.output_tokens = cached + computed, output
