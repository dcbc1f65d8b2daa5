"""`runtime: auto`: which of the runtimes that are proved equal answers fastest here.

Each worker measures at the same time as its siblings, so with the threads and the neighbours that it will serve with.
The first result is kept in a file, and all workers and later starts take it.
"""

import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

LIMIT_S = 60.0
"""No further runtime is tried, and no more is measured, after this time."""
_ROUNDS = 7
Answer = Callable[[int], object]
"""Answers so many inputs at once."""


@dataclass(frozen=True)
class Choice:
    """The `runtime` that is fastest, and what was measured in one line."""

    runtime: str
    note: str


def choose(
    names: Sequence[str], batch_size: int, attempt: Callable[[str], Answer | str], record: Path | None
) -> Choice:
    """The fastest of the runtimes by the geometric mean of its times at 1 and at `batch_size` inputs.

    `attempt` gives a proved runtime's answer function, or why there is none; it is called for the first name in any
    case. `record` keeps the choice, None where nothing does. Raises ValueError where no runtime is proved.
    """
    if record is not None and (known := read(record)) is not None:
        return known
    deadline_s = time.monotonic() + LIMIT_S
    answers: dict[str, Answer] = {}
    problems: list[str] = []
    for name in names:
        outcome = f"{name} not tried within {LIMIT_S:g} s"
        if not answers or time.monotonic() < deadline_s:
            result = attempt(name)
            if not isinstance(result, str):
                answers[name] = result
                continue
            outcome = result
        problems.append(outcome)
    if not answers:
        raise ValueError("; ".join(problems))
    sizes = sorted({1, batch_size})
    times_s = {size: _measure(answers, size, deadline_s) for size in sizes}
    best = min(answers, key=lambda name: math.prod(times_s[size][name] for size in sizes))
    figures = [f"{size} at a time: {_describe(times_s[size])}" for size in sizes]
    choice = Choice(best, f"auto took {best}; " + "; ".join([*figures, *problems]))
    return choice if record is None else _keep(choice, record)


def read(record: Path) -> Choice | None:
    """The choice that is kept; None where there is none."""
    try:
        return Choice(**json.loads(record.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _keep(choice: Choice, record: Path) -> Choice:
    """The first choice that any worker has kept."""
    record.parent.mkdir(parents=True, exist_ok=True)
    part = record.with_suffix(f".{os.getpid()}")
    part.write_text(json.dumps(asdict(choice)))
    try:
        os.link(part, record)
    except OSError:  # another was first, or the file system has no hard links
        if read(record) is None:  # or it was damaged
            part.replace(record)
    finally:
        part.unlink(missing_ok=True)
    return read(record) or choice


def _measure(answers: Mapping[str, Answer], size: int, deadline_s: float) -> dict[str, float]:
    """The shortest time of each, in rounds of turns, the first not counted; other work on the machine only adds."""
    times_s = dict.fromkeys(answers, math.inf)
    for number in range(_ROUNDS + 1):
        for name, answer in answers.items():
            begin_s = time.perf_counter()
            answer(size)
            if number:
                times_s[name] = min(times_s[name], time.perf_counter() - begin_s)
        if number and time.monotonic() > deadline_s:
            break
    return times_s


def _describe(times_s: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {1000 * time_s:.3g} ms" for name, time_s in times_s.items())
