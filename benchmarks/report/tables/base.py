"""A table of a report, the same in Markdown and on the page, so that the two cannot differ.

A cell is None where nothing was measured. A column of nothing but such cells is left out and named in `absent`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from benchmarks.analysis.summary import RungSummary
from benchmarks.report.cells import Cell, Column
from benchmarks.report.neighbours import title_of, users_of

T = TypeVar("T")
_SUBJECT = ("rung", "users")


@dataclass(frozen=True)
class Table:
    """`rows` are as long as `header`; each begins with its subject. `absent` names columns without any value.
    Where `numeric`, all columns but the first are to be read as numbers."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    absent: tuple[str, ...] = ()
    note: str = ""
    numeric: bool = True

    @property
    def empty(self) -> bool:
        """Whether there is nothing to show but the subjects."""
        return not self.rows or (bool(self.absent) and self.header == _SUBJECT)

    @property
    def gap(self) -> str:
        """A sentence that says what is missing."""
        if self.empty:
            return "Not measured."
        return f"Not measured: {'; '.join(self.absent)}." if self.absent else ""


def of_rungs(title: str, rungs: Sequence[RungSummary], columns: Mapping[str, Column], note: str = "") -> Table:
    """A row a rung: its name, its users, and the columns in which any of them has a value."""
    return of_subjects(title, subjects(rungs, lambda rung: rung), columns, note)


def subjects(rungs: Sequence[RungSummary], read: Callable[[RungSummary], T | None]) -> list[tuple[str, str, T]]:
    """A part of each rung that has it, with the rung's title and users, for `of_subjects`."""
    return [(title_of(rung), users_of(rung), part) for rung in rungs if (part := read(rung)) is not None]


def of_subjects(
    title: str,
    entries: Sequence[tuple[str, str, T]],
    columns: Mapping[str, Callable[[T], Cell]],
    note: str = "",
) -> Table:
    """A row for each subject, whose title and users come first."""
    cells = {name: [column(subject) for _, _, subject in entries] for name, column in columns.items()}
    present = [name for name, values in cells.items() if any(value is not None for value in values)]
    rows = [
        (name, users, *(cells[column][number] for column in present)) for number, (name, users, _) in enumerate(entries)
    ]
    absent = tuple(name for name in cells if name not in present)
    return Table(title, (*_SUBJECT, *present), tuple(rows), absent, note)
