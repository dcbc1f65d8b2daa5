"""A request in a worker: its value, how far it is, and the way back for its answer."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Protocol

from servers.engines.litserve.host import wire
from servers.engines.litserve.host.failure import Failure


class Reply(Protocol):
    """The way back for the answer of one work: whole, or in parts and an end."""

    def whole(self, value: Any) -> None:
        """Answer with what encode_response returned. Raises EncodeError."""
        ...

    def part(self, value: Any) -> None:
        """Send one part of a stream, as LitServe's format_encoded_response gave it. Blocks while the client is slow."""
        ...

    def finish(self) -> None:
        """The stream is whole."""
        ...

    async def room(self) -> None:
        """On the loop: wait until the client takes more."""
        ...

    def attach(self, task: asyncio.Task[None]) -> None:
        """End this task when the request is cancelled."""
        ...

    def flush(self) -> None:
        """Send what was answered."""
        ...

    def fail(self, failure: Failure) -> None:
        """Answer with an error, or break off the stream that has begun."""
        ...


class Work:
    """One call of predict's for one request; times are `time.monotonic()`.

    `value` is what decode_request gets, `input` what it returned. `is_over` is whether the last of its answer is sent,
    `is_retried` whether predict failed for its batch and had it alone.
    """

    __slots__ = (
        "batch_size",
        "begun_s",
        "context",
        "decode_s",
        "encode_s",
        "failure",
        "has_parts",
        "headers",
        "input",
        "is_cancelled",
        "is_over",
        "is_retried",
        "predict_s",
        "queued_s",
        "received_s",
        "reply",
        "request_id",
        "value",
    )

    def __init__(self, value: Any, reply: Reply, request: wire.Request) -> None:
        self.value = value
        self.reply = reply
        self.request_id = request.request_id
        self.queued_s = request.queued_s
        self.headers: Mapping[str, str] = dict(request.headers)
        self.failure: Failure | None = None
        self.context: dict[str, Any] = {}
        self.input: Any = None
        self.is_cancelled = False
        self.is_over = False
        self.is_retried = False
        self.has_parts = False
        self.batch_size = 1
        self.received_s = time.monotonic()
        self.begun_s = self.received_s
        self.decode_s = 0.0
        self.predict_s = 0.0
        self.encode_s = 0.0

    @property
    def times(self) -> tuple[float, float, float, float, float]:
        """As the wire has them."""
        return self.received_s, self.begun_s, self.decode_s, self.predict_s, self.encode_s
