"""report.md: the report of a result as text.

It opens with the findings against the result, if there are any, and says "not measured" where nothing was. Text from
outside is shown as it is and never becomes markup.
"""

import json
import re
from collections.abc import Iterable, Iterator

import msgspec

from benchmarks.report.sentences import about, cluster, confirmed, others, verdict
from benchmarks.report.tables import hardware, ladder
from benchmarks.report.tables.base import Table
from benchmarks.report.tables.time import times
from benchmarks.result import Result


def markdown(result: Result) -> str:
    """The report as Markdown (GitHub's)."""
    return "\n".join(_lines(result))


def _lines(result: Result) -> Iterator[str]:
    yield f"# {_text(result.model)}: what serving costs\n"
    if not result.valid:
        yield "> **NOT VALID: do not quote these figures.**\n>"
        for finding in result.findings:
            yield f"> - {_text(finding.rung)}: {_text(finding.message)} ({_text(finding.rule)})"
        yield ""
    yield f"**Verdict.** {_text(verdict(result))}\n"
    if outcome := confirmed(result):
        yield f"**Confirmed?** {_text(outcome)}\n"
    if note := cluster(result):
        yield f"**On Ray.** {_text(note)}\n"
    if note := others(result):
        yield f"**{_text(note)}**\n"
    yield from _table(ladder.ladder(result), 2)
    yield "## Latency\n"
    for table in ladder.latencies(result):
        yield from _table(table, 3)
    yield "## Where the time goes\n"
    breakdowns = times(result)
    for table in breakdowns:
        yield from _table(table, 3)
    if not breakdowns:
        yield "Not measured.\n"
    for table in (
        ladder.requests(result),
        ladder.generator(result),
        ladder.parity(result),
        hardware.processors(result),
        *hardware.gpus(result),
        ladder.efficiency(result),
    ):
        yield from _table(table, 2)
    yield "## The run\n"
    yield from _table(about(result), 0)
    yield "Settings:\n"
    yield f"```json\n{json.dumps(msgspec.to_builtins(result.settings), indent=1)}\n```\n"


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


def _text(text: str) -> str:
    """The text as Markdown that shows it and nothing else."""
    line = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*\[\]|~])", r"\\\1", line)
