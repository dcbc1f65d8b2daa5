"""The events of a pull, for a terminal, a supervisor or a test."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

TICK_S = 0.5  # time between two counts of the bytes during a download


@dataclass(frozen=True)
class Progress:
    """One event of a pull. `message` is set for a new step; the byte counts come every `TICK_S`."""

    phase: Literal["checking", "downloading", "converting", "ready"]
    message: str | None = None
    done_bytes: int | None = None
    total_bytes: int | None = None


Report = Callable[[Progress], None]
"""A function that gets the events; always called from the thread that pulls."""
