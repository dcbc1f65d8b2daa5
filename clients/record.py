"""A request to be sent, and its outcome.

Both cross process boundaries as MessagePack, so they hold plain values only. All times are seconds of
`time.monotonic()`, which every process of a machine shares. A record counts tokens as the server reported them: nothing
here tokenises, and a chunk is not a token.
"""

from collections.abc import Iterable

import msgspec


class Call(msgspec.Struct, frozen=True):
    """One request: where, what, and when.

    `at_s` is when it is due, counted from the start of the load; None: as soon as a user is free. It waits for the
    answer to the call with the index `after`. `session` calls stay with one generator. `asked_tokens` is the length of
    the answer that it asks for.
    """

    index: int
    path: str
    body: bytes
    content_type: str = "application/json"
    at_s: float | None = None
    after: int | None = None
    session: int = 0
    asked_tokens: int | None = None


class RequestRecord(msgspec.Struct, kw_only=True):
    """The outcome of one request; None where the server did not say or nothing came.

    `scheduled_s` is when it was due, `sent_s` when it was sent, `chunk_s` when each part of the answer's content came,
    `end_s` when the answer was complete. `status` is 0 when there was no answer at all; `error` says why it failed.
    """

    index: int
    scheduled_s: float
    sent_s: float
    end_s: float = 0.0
    chunk_s: list[float] = []
    status: int = 0
    error: str | None = None
    asked_tokens: int | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None

    @property
    def failed(self) -> bool:
        """Whether the answer is missing, refused or broken off."""
        return self.error is not None

    @property
    def e2e_s(self) -> float:
        """End-to-end latency, from the scheduled time."""
        return self.end_s - self.scheduled_s

    @property
    def ttft_s(self) -> float | None:
        """Time to first token, from the scheduled time."""
        return self.chunk_s[0] - self.scheduled_s if self.chunk_s else None

    @property
    def tpot_s(self) -> float | None:
        """Time per output token after the first: from the first chunk to the last, over the tokens but one."""
        if len(self.chunk_s) < 2 or not self.output_tokens or self.output_tokens < 2:
            return None
        return (self.chunk_s[-1] - self.chunk_s[0]) / (self.output_tokens - 1)


def window(records: Iterable[RequestRecord]) -> tuple[float, float]:
    """When the first of the requests was due, and when the last answer was complete; ValueError without any."""
    times = [(record.scheduled_s, record.end_s) for record in records]
    return min(begin_s for begin_s, _ in times), max(end_s for _, end_s in times)
