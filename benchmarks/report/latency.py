"""The latencies of a report: their titles, and where their figures lie."""

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.analysis.figures import Distribution, Figures, Statistic


@dataclass(frozen=True)
class Latency:
    """A latency: its short name, its title, and its distribution among the figures of a rung."""

    name: str
    title: str
    read: Callable[[Figures], Distribution | None]


TTFT = Latency("ttft", "Time to first token, or first part of the answer (ttft)", lambda figures: figures.ttft_s)
TPOT = Latency("tpot", "Time per output token after the first (tpot)", lambda figures: figures.tpot_s)
ITL = Latency("itl", "Time between parts of an answer (itl)", lambda figures: figures.itl_s)
E2E = Latency("e2e", "End-to-end latency (e2e)", lambda figures: figures.e2e_s)
LATENCIES = (TTFT, TPOT, ITL, E2E)
STATISTICS: tuple[Statistic, ...] = ("mean", "p50", "p90", "p99")
