"""report.md: the report of a result as text.

It opens with what is wrong with the result, where there is anything, and says "not measured" where nothing was. Words
from outside are shown as they are; they never become markup.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from benchmarks.report import hardware_tables, tables
from benchmarks.report.tables import Table
from benchmarks.report.words import about, confirmed, verdict


def markdown(result: Mapping[str, Any]) -> str:
    """The report as Markdown (GitHub's)."""
    return "\n".join(_lines(result))


def _lines(result: Mapping[str, Any]) -> Iterator[str]:
    yield f"# {_text(result['model'])}: what serving costs\n"
    if not result["valid"]:
        yield "> **NOT VALID: do not quote these figures.**\n>"
        for found in result["findings"]:
            yield f"> - {_text(found['rung'])}: {_text(found['message'])} ({_text(found['rule'])})"
        yield ""
    yield f"**Verdict.** {_text(verdict(result))}\n"
    if tried := confirmed(result):
        yield f"**Confirmed?** {_text(tried)}\n"
    yield from _table(tables.ladder(result), 2)
    yield "## Latency\n"
    for table in tables.latencies(result):
        yield from _table(table, 3)
    yield "## Where the time goes\n"
    times = tables.times(result)
    for table in times:
        yield from _table(table, 3)
    if not times:
        yield "Not measured.\n"
    for table in (
        tables.requests(result),
        tables.generator(result),
        tables.parity(result),
        hardware_tables.processors(result),
        hardware_tables.gpus(result),
        tables.efficiency(result),
    ):
        yield from _table(table, 2)
    yield "## The run\n"
    yield from _table(about(result), 0)
    yield "Settings:\n"
    yield f"```json\n{json.dumps(result['settings'], indent=1)}\n```\n"


def _table(table: Table, level: int) -> Iterator[str]:
    if level:
        yield f"{'#' * level} {_text(table.title)}\n"
    if not table.empty:
        yield _row(table.header)
        yield "|:--" + ("|--:" if table.numeric else "|:--") * (len(table.header) - 1) + "|"
        for row in table.rows:
            yield _row(["not measured" if cell is None else cell for cell in row])
        yield ""
    if table.gap:
        yield f"{_text(table.gap)}\n"
    if table.note:
        yield f"{_text(table.note)}\n"


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(map(_text, cells)) + " |"


def _text(words: str) -> str:
    """Words as Markdown that shows them and nothing else."""
    flat = " ".join(words.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*\[\]|~])", r"\\\1", flat)
