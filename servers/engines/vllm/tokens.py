"""The count of tokens that comes beside vLLM's answers (see `child.token_counts`), taken out of them again."""

from collections.abc import Callable

from servers.engines.connection import Reply, TokenCount
from servers.engines.stream import Stream

HEADER = b"x-litport-tokens"
COMMENT = b": litport-tokens "

_END = b"\n\n"
_END_OF_JSON = b"}" + _END
_BEHIND_EVENT = _END + COMMENT


def split_count(reply: Reply, judge: Callable[[TokenCount], None] = lambda _: None) -> None:
    """Make the reply what vLLM alone would have sent, with its `tokens`; those of a stream come with its last chunk.

    The chunks of an event stream are whole events. `judge` is called with a count as soon as it is there.
    """
    for name, value in reply.headers:
        if name == HEADER:
            reply.headers = [pair for pair in reply.headers if pair[0] != HEADER]
            reply.tokens = TokenCount(*map(int, value.split()))
            judge(reply.tokens)
            return
        if name == b"content-type" and value.startswith(b"text/event-stream") and isinstance(reply.chunks, Stream):
            reply.tokens = TokenCount()
            reply.chunks.edit(_CountTaker(reply.tokens, judge))
            return


class _CountTaker:
    """Takes the comment with the count out of an event stream, and holds back half an event."""

    def __init__(self, tokens: TokenCount, judge: Callable[[TokenCount], None]) -> None:
        self._tokens = tokens
        self._judge = judge
        self._rest = b""

    def edit(self, chunk: bytes) -> bytes:
        """See `Editor`."""
        if chunk.endswith(_END_OF_JSON) and not self._rest:
            return chunk  # whole events without a count behind them, as nearly all chunks are
        if self._rest:
            chunk, self._rest = self._rest + chunk, b""
        if not chunk.endswith(_END):
            end = chunk.rfind(_END)
            end = 0 if end < 0 else end + len(_END)
            chunk, self._rest = chunk[:end], chunk[end:]
        if COMMENT in chunk and (_BEHIND_EVENT in chunk or chunk.startswith(COMMENT)):
            chunk, _, count = chunk.rpartition(COMMENT)
            self._tokens.input_tokens, self._tokens.output_tokens = map(int, count.split())
            self._judge(self._tokens)
        return chunk

    def rest(self) -> bytes:
        """See `Editor`."""
        rest, self._rest = self._rest, b""
        return rest
