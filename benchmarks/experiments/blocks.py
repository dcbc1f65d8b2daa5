"""Blocks of load in an experiment: their figures, and a table of them."""

import json
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Block:
    """One side under load. Processor time is for a request; a side that answers no client has no latencies."""

    requests_per_s: float
    processor_ms: float
    p50_ms: float | None = None
    p99_ms: float | None = None


def block_of(latencies_s: Sequence[float], elapsed_s: float, processor_s: float) -> Block:
    """The figures of so many answers. Raises ValueError for fewer than two."""
    cuts = statistics.quantiles(latencies_s, n=100)
    count = len(latencies_s)
    return Block(count / elapsed_s, 1000 * processor_s / count, 1000 * cuts[49], 1000 * cuts[98])


def print_blocks(blocks: Mapping[str, Sequence[Block]], load_before: float) -> None:
    """The load of the machine, each side's medians with the least and most, and as the last line one JSON document."""
    print(f"load before and after: {load_before:.1f}, {os.getloadavg()[0]:.1f}")
    print("| side | requests/s | processor ms a request | p50, ms | p99, ms |\n|---|---|---|---|---|")
    for side, rows in blocks.items():
        print(_row(side, rows))
    print(json.dumps({side: [asdict(block) for block in rows] for side, rows in blocks.items()}))


def _row(side: str, blocks: Sequence[Block]) -> str:
    cells = [side]
    for name in ("requests_per_s", "processor_ms", "p50_ms", "p99_ms"):
        values = [value for block in blocks if (value := getattr(block, name)) is not None]
        cells.append(f"{statistics.median(values):.4g} ({min(values):.4g} to {max(values):.4g})" if values else "")
    return "| " + " | ".join(cells) + " |"
