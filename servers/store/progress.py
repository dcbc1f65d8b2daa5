"""What a pull tells whoever waits for it.

It exists so that a terminal, a supervisor and a test hear the same events. It never decides how they are shown.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

TICK_S = 0.5  # how often bytes are counted while something is on its way


@dataclass(frozen=True)
class Progress:
    """One event of a pull. `message` comes when there is news; the byte counts every `TICK_S`."""

    phase: Literal["checking", "downloading", "converting", "ready"]
    message: str | None = None
    done_bytes: int | None = None
    total_bytes: int | None = None


Report = Callable[[Progress], None]
"""Called from the thread that pulls, never from another one."""
