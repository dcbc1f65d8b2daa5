"""When requests are due: the shapes of load.

Times count from the start of a measurement. A closed load has none: a user asks again once answered. The times of every
other shape are drawn before a request is sent, so all rungs get the same arrivals and a slow server delays no request.
"""

import itertools
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.load.workload import Item, with_length
from configs.bench import Load
from configs.errors import UserError


def schedule(items: Sequence[Item], load: Load, seed: int) -> list[Item]:
    """The items with the times at which they are due; a trace may also set lengths. Raises UserError."""
    if load.shape in ("closed", "ramp"):
        return list(items)
    if load.shape == "trace":
        assert load.trace is not None, "the settings have checked it"
        return _replay(items, load.trace, load.time_scale)
    assert load.rate_per_s is not None, "the settings have checked it"
    draw = random.Random(seed)  # noqa: S311 # a workload must be repeatable
    times = {"poisson": _poisson, "constant": _constant, "bursts": _bursts}[load.shape](load, draw)
    return [msgspec.structs.replace(item, at_s=at_s) for item, at_s in zip(items, times, strict=False)]


def offered_rate_per_s(items: Sequence[Item]) -> float | None:
    """Requests a second that the times ask for; None for a closed load."""
    times = [item.at_s for item in items if item.at_s is not None]
    if len(times) < 2 or times[-1] <= times[0]:
        return None
    return (len(times) - 1) / (times[-1] - times[0])


def _constant(load: Load, draw: random.Random) -> Iterator[float]:
    del draw
    assert load.rate_per_s is not None
    yield from itertools.count(0, 1 / load.rate_per_s)


def _poisson(load: Load, draw: random.Random) -> Iterator[float]:
    """Independent arrivals: the gaps are exponential."""
    assert load.rate_per_s is not None
    at_s = 0.0
    while True:
        yield at_s
        at_s += draw.expovariate(load.rate_per_s)


def _bursts(load: Load, draw: random.Random) -> Iterator[float]:
    """Bursts of `burst_size` at once; their starts are Poisson, and the mean rate is kept."""
    assert load.rate_per_s is not None
    at_s = 0.0
    while True:
        yield from itertools.repeat(at_s, load.burst_size)
        at_s += draw.expovariate(load.rate_per_s / load.burst_size)


def _replay(items: Sequence[Item], trace: Path, time_scale: float) -> list[Item]:
    lines = _lines(trace)
    start = lines[0]["timestamp"]
    items_of_trace = []
    for item, line in zip(items, lines, strict=False):
        if item.output_tokens is not None and line["output_length"]:
            item = with_length(item, line["output_length"])
        changes: dict[str, Any] = {"at_s": (line["timestamp"] - start) * time_scale}
        if item.token_ids and line["input_length"]:
            # Repeated to length: a trace records how long a prompt was, not its content.
            ids = itertools.cycle(item.token_ids[0])
            changes["token_ids"] = [list(itertools.islice(ids, line["input_length"]))]
        items_of_trace.append(msgspec.structs.replace(item, **changes))
    return items_of_trace


def _lines(trace: Path) -> list[dict[str, Any]]:
    try:
        lines = [json.loads(line) for line in trace.read_text(encoding="utf-8").splitlines() if line.strip()]
        for line in lines:
            line["timestamp"] = float(line["timestamp"])
            for name in ("input_length", "output_length"):
                line[name] = int(line.get(name) or 0)
        lines.sort(key=lambda line: line["timestamp"])
    except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise UserError(
            f"bench.load.trace: expected JSON lines of numbers with `timestamp` in {trace}: {problem!r}"
        ) from None
    if not lines:
        raise UserError(f"bench.load.trace: expected requests in {trace}, found none")
    return lines
