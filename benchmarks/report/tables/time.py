"""The tables of where the time goes: the rows of each rung, and what each gained over the rung before."""

from benchmarks.analysis.summary import RungSummary, TimeSummary
from benchmarks.report.cells import milliseconds, percent
from benchmarks.report.neighbours import before, changes, row_labels, title_of, with_users
from benchmarks.report.tables.base import Table
from benchmarks.result import Result

_TOTAL = "measured end to end"
_ABSENT = "-"


def times(result: Result) -> list[Table]:
    """A table for each rung that has a breakdown."""
    return [_time(rung, rung.time, before(result, rung)) for rung in result.rungs if rung.time]


def _time(rung: RungSummary, time: TimeSummary, earlier: RungSummary | None) -> Table:
    labels = row_labels([rung, earlier] if earlier else [rung])
    seconds = {row.key: row.seconds for row in time.rows}
    gains = changes(earlier, rung) if earlier else {}
    rows = [
        (
            labels[key],
            milliseconds(seconds[key]) if key in seconds else _ABSENT,
            percent(seconds[key] / time.e2e_s) if key in seconds and time.e2e_s else _ABSENT,
            *((_signed(gains[key]),) if earlier else ()),
        )
        for key in {**seconds, **gains}
    ]
    rows.append(
        (
            _TOTAL,
            milliseconds(time.e2e_s),
            percent(1) if time.e2e_s else _ABSENT,
            *((_signed(time.e2e_s - earlier.time.e2e_s),) if earlier and earlier.time else ()),
        )
    )
    error = time.closure_error
    closure = "Closure error not measured" if error is None else f"Closure error {error:+.2%}"
    note = f"{closure}: {time.note}." if time.note else f"{closure}."
    if earlier:
        note += f" Change: from {title_of(earlier)}."
    if any(_ABSENT in row for row in rows):
        note += f" Rows marked {_ABSENT} are only in that one."
    header = ("row", "ms a request", "share", *(("change, ms",) if earlier else ()))
    return Table(f"{title_of(rung)}, {with_users(rung.users)}", header, tuple(rows), note=note)


def _signed(seconds: float) -> str:
    text = milliseconds(seconds)
    return f"+{text}" if seconds > 0 and not text.startswith("<") else text
