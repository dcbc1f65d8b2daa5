"""A model as the platform sees it: its settings, its state, and the way to its process.

Supervisor and front door share these objects: the one changes them, the other reads them. A model does not move by
itself; it refuses to know how it is started.
"""

import math
import time
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import aiohttp

from configs.settings import LitServeModel, VllmModel
from servers.engines.base import Card, Engine

_GUESS_S = 10
# Clearing up, and the first wait before a restart.
_BEFORE_START_S = 2.0


class State(StrEnum):
    """Where a model is in its life. Only `READY` gets traffic."""

    PULLING = "pulling"
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass
class Model:
    """One served model.

    `detail` says in words what is being done or why it failed, `phases_s` how long each step of the last start took
    (seconds), `session` reaches the child's Unix socket and is set while a child runs. `deaths` counts the children
    that broke while they were ready, `in_flight` the requests that the child has, and `answered_at_s` is when any of
    its answers last moved (`time.monotonic()`). `start_s` is what its last start took, the pull not counted.
    `transitions` counts how often it entered each state, `canaries` how they ended ("ok", "failed"), and `canary_s` is
    how long those that were answered took, all together.
    """

    name: str
    settings: VllmModel | LitServeModel
    engine: Engine
    socket: Path
    log_file: Path
    state: State = State.STARTING
    detail: str = "waiting"
    since: float = field(default_factory=time.time)
    phases_s: dict[str, float] = field(default_factory=dict)
    restarts: int = 0
    card: Card | None = None
    session: aiohttp.ClientSession | None = None
    group_id: int | None = None
    start_s: float | None = None
    deaths: int = 0
    in_flight: int = 0
    answered_at_s: float = 0.0
    transitions: Counter[State] = field(default_factory=lambda: Counter([State.STARTING]))
    canaries: Counter[str] = field(default_factory=Counter)
    canary_s: float = 0.0

    @property
    def back_in_s(self) -> int:
        """In how many seconds it is probably ready, if it starts as it did last time; a guess where it never did."""
        if self.start_s is None:
            return _GUESS_S
        spent_s = 0.0 if self.state is State.READY else time.time() - self.since
        return max(1, math.ceil(self.start_s + _BEFORE_START_S - spent_s))

    def move(self, state: State, detail: str = "") -> None:
        """Enter a state (or a new step within it)."""
        if state is not self.state:
            self.since = time.time()
            self.transitions[state] += 1
        self.state = state
        self.detail = detail
