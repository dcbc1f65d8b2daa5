"""A rung of the ladder: what answers the workload, with a server or without.

Each rung is started, measured and ended by itself, in a process tree of its own.
"""

from collections.abc import Sequence
from typing import Protocol

from benchmarks.analysis.measurement import Answer, Measurement
from benchmarks.load.request import ReadAs
from benchmarks.load.workload import Item


class Rung(Protocol):
    """What the ladder needs of a rung.

    `read_as` is None for a bare model; `pid` is None while nothing runs and where somebody else runs it. `machines`
    is their number on a cluster; None for a rung that is on none.
    """

    name: str
    pid: int | None
    batch_size: int | None
    machines: int | None

    @property
    def read_as(self) -> ReadAs | None:
        """How the load generator reads its answers; None where there is no load generator."""
        ...

    def start(self) -> None:
        """Bring it up. Raises RungError."""
        ...

    def measure(self, items: Sequence[Item], users: int, time_limit_s: float, processes: int) -> Measurement:
        """Answer the items. Raises RungError when there is nothing to measure."""
        ...

    def answer(self, items: Sequence[Item]) -> list[Answer]:
        """Greedy answers, one at a time."""
        ...

    def end(self) -> None:
        """End its processes."""
        ...
