"""What the dispatcher takes and gives: a request, and its answer."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from servers.engines.connection import AnswerBrokenError, NotTakenError
from servers.engines.stream import Stream

Headers = Sequence[tuple[str, str]]
STEPS = ("receive", "queue", "batch_wait", "decode", "predict", "encode")


class DispatchError(Exception):
    """The request has no answer, or only the beginning of one."""


class WorkerDiedError(DispatchError, ConnectionResetError):
    """The worker ended while it worked on this request."""


class NoWorkerError(DispatchError, NotTakenError):
    """The model's processes are gone or leaving."""


class QueueTimeoutError(DispatchError):
    """The deadline passed before a worker was free."""


class BrokenAnswerError(DispatchError, AnswerBrokenError):
    """The stream failed after its first part; the message names the exception's class."""


@dataclass(frozen=True)
class Policy:
    """How the model `name` is served; times in seconds.

    `batch_timeout_s` None makes batches of whatever waits. `cancel_grace_s` is how long a worker may go on with work
    that nobody waits for, `ping_timeout_s` how long one at rest may leave a ping unanswered, before it is replaced.
    """

    name: str
    batch_timeout_s: float | None = None
    cancel_grace_s: float = 5.0
    ping_timeout_s: float = 8.0


@dataclass(slots=True)
class HostRequest:
    """One request; `deadline_s` is `time.monotonic()` at which nobody waits for a worker any more.

    `has_tensors` is whether it is an inference request with tensors, and not one to the API's own route.
    """

    request_id: str
    content_type: str
    body: bytes
    headers: Headers = ()
    query: bytes = b""
    method: str = "POST"
    deadline_s: float | None = None
    has_tensors: bool = False


class Steps(NamedTuple):
    """Where the request's time went, in seconds; batch_wait is the wait for company while a worker was free."""

    receive_s: float
    queue_s: float
    batch_wait_s: float
    decode_s: float
    predict_s: float
    encode_s: float
    batch_size: int


class Totals:
    """What all answers so far took, each step and the whole, and how many batches there were of each size.

    `retried` counts the requests that predict had alone after it had failed for their batch.
    """

    def __init__(self) -> None:
        self.requests = 0
        self.retried = 0
        self.whole_s = 0.0
        self.seconds = dict.fromkeys(STEPS, 0.0)
        self.batch_sizes: Counter[int] = Counter()

    def add(self, steps: Steps, whole_s: float) -> None:
        """Count one answer."""
        self.requests += 1
        self.whole_s += whole_s
        for step, spent_s in zip(STEPS, steps, strict=False):
            self.seconds[step] += spent_s


@dataclass(slots=True)
class HostResponse:
    """An answer: `body` if it is whole, else `parts`. `steps` is there once the last of it has come."""

    status: int
    headers: Headers
    body: bytes = b""
    parts: Stream | None = None
    steps: Steps | None = None
