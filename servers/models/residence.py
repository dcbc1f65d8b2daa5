"""The residence of a model: whether it is in memory, how it came there, and what it takes there."""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from servers.engines.base import Card
from servers.models.size_record import SizeRecord

UnloadReason = Literal["idle", "room", "command"]
UNLOAD_REASONS: tuple[UnloadReason, ...] = ("idle", "room", "command")

_FIRST_BACKOFF_S = 1.0
_MAX_BACKOFF_S = 60.0


@dataclass
class Residence:
    """What is known of the loads of one model.

    A model that is `on_demand` is loaded by a request; so is any model that was unloaded once. While it is not
    `is_open`, its requests wait in their row. `has_room` is whether its memory counts, `needs_bytes` what its engine
    expects to take, `gpu_shares` the parts of GPUs that it takes, `estimate_bytes` what it took in an earlier platform
    by the `record`, else that times the `correction`, and `measured_bytes` what its processes took at the last look,
    shared pages by their share. `card` is what it offered when it was last loaded. `loaded_at_s` and `retry_at_s`, the
    moment from which it may be loaded again after failures, are times of `time.monotonic()`. `sleep_level` is that at
    which its processes sleep since `slept_at_s`, 0 where they do not, `asleep_bytes` what they took then at the last
    look; it `is_waking` once it has its GPUs again. `lock` is held by the one load or unload that goes on. While a new
    version `is_beside` the old one, it starts only where there is room for both; its correction is the old one's.
    """

    on_demand: bool
    record: SizeRecord | None = None
    is_open: bool = False
    is_beside: bool = False
    correction: float = 1.0
    has_room: bool = False
    needs_bytes: int = 0
    gpu_shares: Mapping[str, float] = field(default_factory=dict)
    estimate_bytes: int = 0
    measured_bytes: int | None = None
    card: Card | None = None
    loaded_at_s: float = -math.inf
    sleep_level: int = 0
    asleep_bytes: int | None = None
    is_waking: bool = False
    slept_at_s: float = -math.inf
    loads: Counter[Literal["ok", "failed"]] = field(default_factory=Counter)
    unloads: Counter[UnloadReason] = field(default_factory=Counter)
    failure: str = ""
    retry_at_s: float = -math.inf
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _failures: int = 0

    def __post_init__(self) -> None:
        self.is_open = not self.on_demand

    @property
    def size_bytes(self) -> int:
        """What the model takes: as measured, else as estimated."""
        if self.sleep_level and self.asleep_bytes is not None:
            return self.asleep_bytes
        return self.estimate_bytes if self.measured_bytes is None else self.measured_bytes

    @property
    def measured_correction(self) -> float:
        """What the model took as a multiple of its engine's estimate; 1 where that is not known."""
        return self.measured_bytes / self.needs_bytes if self.measured_bytes and self.needs_bytes else 1.0

    def expect(self, needs_bytes: int) -> None:
        """The model is about to take memory, by its engine's estimate."""
        self.needs_bytes = needs_bytes
        recorded_bytes = self.record.read() if self.record is not None else None
        self.estimate_bytes = round(needs_bytes * self.correction) if recorded_bytes is None else recorded_bytes

    def measure(self, size_bytes: int) -> None:
        """Note what its processes take."""
        if self.sleep_level:
            self.asleep_bytes = size_bytes  # nothing to expect of the next start
            return
        self.measured_bytes = size_bytes
        if self.record is not None:
            self.record.write(size_bytes)

    def settle(self) -> None:
        """A load has succeeded: requests may run."""
        self.is_open = True
        self.forgive()

    def forgive(self) -> None:
        """Forget that loads have failed: the next one is tried at once."""
        self.failure, self._failures, self.retry_at_s = "", 0, -math.inf

    def fail(self, reason: str) -> None:
        """A load has failed, or the model broke too often: the next one is tried after a backoff."""
        self.is_open = False
        self.leave()
        self.failure = reason
        self._failures += 1
        self.retry_at_s = time.monotonic() + min(_FIRST_BACKOFF_S * 2 ** (self._failures - 1), _MAX_BACKOFF_S)

    def leave(self) -> None:
        """It has no processes any more."""
        self.has_room = False
        self.awake()

    def awake(self) -> None:
        """It does not sleep any more."""
        self.sleep_level, self.asleep_bytes, self.is_waking = 0, None, False

    def close(self) -> None:
        """Let requests wait for the next load from now on."""
        self.is_open = False
        self.on_demand = True
