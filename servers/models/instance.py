"""An instance: one place where a model runs. It has a state, and while it runs a connection to its processes.

The supervisor moves an instance through its states; everybody else reads it.
"""

import math
import time
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from servers.engines.base import Card, Engine
from servers.engines.connection import Connection
from servers.engines.replica.engine import ReplicaEngine
from servers.errors import MAX_RETRY_AFTER_S

# The estimate of a start that was never measured.
_UNMEASURED_START_S = 10
# Clearing up, and the first wait before a restart.
_BEFORE_START_S = 2.0
_AVOIDED_S = 2.0


class State(StrEnum):
    """Where an instance is in its life. Only `READY` gets requests.

    Those to one that is `UNLOADED`, or `ASLEEP` in processes that serve nothing, wait for its load.
    """

    PULLING = "pulling"
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    ASLEEP = "asleep"
    UNLOADED = "unloaded"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(eq=False)
class Instance:
    """One process tree that serves a model on the Unix socket `socket` and logs into `log_file`.

    One with an `address` runs elsewhere, at a replica or at another server: it has no process here, and nobody here can
    mend it. `failures` counts its starts and deaths since it was stable.

    `engine` is made for this instance, where its model has several. `refused_at_s` is when nobody listened
    (`time.monotonic()`).

    `detail` describes the current step, or why it failed. `phases_s` is the duration of each step of the last start, or
    of waking, `start_s` the whole of the last start without the pull, and `wake_s` that of the last waking (seconds).
    `connection` leads to the child while one runs, and `card` what the child offers when it is ready. `deaths` is how
    often the child broke after it was ready, `in_flight` the requests that it has, and `answered_at_s` is when a byte
    of any answer last came (`time.monotonic()`). `transitions` counts the entries into each state,
    `canaries` their results ("ok", "failed"), and `canary_s` is the sum of the durations of those that were answered.
    """

    socket: Path
    log_file: Path
    address: str | None = None
    engine: Engine | None = None
    state: State = State.STARTING
    detail: str = "waiting"
    since: float = field(default_factory=time.time)
    phases_s: dict[str, float] = field(default_factory=dict)
    restarts: int = 0
    failures: int = 0
    card: Card | None = None
    connection: Connection | None = None
    group_id: int | None = None
    start_s: float | None = None
    wake_s: float | None = None
    deaths: int = 0
    in_flight: int = 0
    answered_at_s: float = 0.0
    refused_at_s: float = -math.inf
    transitions: Counter[State] = field(default_factory=lambda: Counter([State.STARTING]))
    canaries: Counter[str] = field(default_factory=Counter)
    canary_s: float = 0.0

    @property
    def place(self) -> bytes:
        """Where it runs, which no other instance of the model has in common."""
        return (self.address or str(self.socket)).encode()

    @property
    def is_replica(self) -> bool:
        """Whether a replica of Litport has it, and does with requests what a process here would do."""
        return isinstance(self.engine, ReplicaEngine)

    @property
    def has_own_queue(self) -> bool:
        """Whether it is a server elsewhere, which says by itself when it is full."""
        return self.address is not None and not self.is_replica

    @property
    def is_avoided(self) -> bool:
        """Whether nobody listened a moment ago, so that others come first."""
        return time.monotonic() - self.refused_at_s < _AVOIDED_S

    @property
    def ready_in_s(self) -> int:
        """Estimated seconds until it is ready, from the duration of its last start; at most MAX_RETRY_AFTER_S."""
        if self.state is State.ASLEEP and self.wake_s is not None:
            return min(MAX_RETRY_AFTER_S, max(1, math.ceil(self.wake_s)))
        if self.start_s is None:
            return _UNMEASURED_START_S
        elapsed_s = 0.0 if self.state in (State.READY, State.ASLEEP, State.UNLOADED) else time.time() - self.since
        return min(MAX_RETRY_AFTER_S, max(1, math.ceil(self.start_s + _BEFORE_START_S - elapsed_s)))

    def move(self, state: State, detail: str = "") -> None:
        """Enter a state, or a new step within it."""
        if state is not self.state:
            self.since = time.time()
            self.transitions[state] += 1
        self.state = state
        self.detail = detail
