"""What a LitServe worker works on, and who hears of it: requests, batches of them, and listeners.

All times are `time.monotonic()`, in seconds.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal

from litserve.loops import BatchedLoop, BatchedStreamingLoop, SingleLoop, StreamingLoop

Trace = tuple[int, int, int, str]
"""Trace id, span id, flags and tracestate of a span, below which another process makes its own."""

Step = Literal["batch_wait", "decode", "predict", "encode"]


class LoopKind(Enum):
    """How LitServe runs an API."""

    ONE_BY_ONE = 1
    BATCHED = 2
    ASYNC = 3
    CUSTOM = 4

    @classmethod
    def of(cls, api: Any) -> "LoopKind":
        """The kind of this API's loop; CUSTOM is any loop of which we know nothing."""
        if type(api.loop) not in (BatchedLoop, BatchedStreamingLoop, SingleLoop, StreamingLoop):
            return cls.CUSTOM
        if api.enable_async:
            return cls.ASYNC
        return cls.BATCHED if api.max_batch_size > 1 else cls.ONE_BY_ONE


@dataclass(slots=True, eq=False)
class Request:
    """A request in a worker, from the queue until the last of its answer is sent. `span` belongs to the tracer."""

    uid: str
    request_id: str
    trace: Trace | None
    queued_s: float
    taken_s: float = field(default_factory=time.monotonic)
    batch: "Batch | None" = None
    span: Any = None


@dataclass(slots=True, eq=False)
class Batch:
    """Requests that a worker works on together; one, where LitServe makes no batches. `trace` belongs to the tracer."""

    requests: Sequence[Request]
    is_waiting: bool = True
    step_begin_s: float = field(default_factory=time.monotonic)
    trace: Any = None


class Listener:
    """Hears what happens in a worker, in this order; it is made in the main process and copied to each worker."""

    def start(self, api: Any) -> None:
        """The worker has started; the API's setup comes next."""

    def request_taken(self, request: Request) -> None:
        """A request has come out of the queue."""

    def batch_began(self, batch: Batch) -> None:
        """The worker turns to these requests."""

    def step_ended(self, batch: Batch, step: Step, spent_s: float) -> None:
        """A step is over, and the next begins. Without batches, a stream's `decode` is part of its `batch_wait`."""

    def request_answered(self, request: Request, error: Any) -> None:
        """The last part of the answer has been sent, or `error` in its place."""

    def batch_ended(self) -> None:
        """The worker asks for its next request."""
