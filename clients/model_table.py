"""The table of models in a terminal: what does not fit goes by priority, and long names fold."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from clients.documents import ModelStatus

COLOURS = {
    "ready": "green",
    "failed": "red",
    "pulling": "cyan",
    "starting": "yellow",
    "draining": "yellow",
    "asleep": "dim",
    "unloaded": "dim",
}
_FOLDED_NAME = 12


class Column(NamedTuple):
    """A column of the table of models; on a narrow terminal the columns with the least `priority` go first."""

    heading: str
    format: Callable[[ModelStatus], str]
    priority: int
    justify: Literal["left", "right"] = "right"


def fit(models: Sequence[ModelStatus], offered: Sequence[Column], console: Console) -> Table:
    """A row for each model, with as many of the columns as the terminal holds."""
    longest = max((len(model.name) for model in models), default=0)
    for threshold in range(10):
        columns = [column for column in offered if column.priority >= threshold]
        # From here on, columns matter more than a name on one line: names fold and columns stand closer together.
        folds = threshold > 4
        table = _table(models, columns, padding=1 if folds else 2)
        width = Measurement.get(console, console.options.update(max_width=10_000), table).maximum
        if width - (max(0, longest - _FOLDED_NAME) if folds else 0) <= console.width:
            break
    return table


def _table(models: Sequence[ModelStatus], columns: Sequence[Column], padding: int) -> Table:
    table = Table(box=None, padding=(0, padding, 0, 0), pad_edge=False)
    for column in columns:
        is_name = column.heading == "model"
        table.add_column(column.heading, justify=column.justify, no_wrap=not is_name, overflow="fold")
    for model in models:
        colour = {"state": COLOURS.get(model.state, "")}
        table.add_row(*(Text(column.format(model), colour.get(column.heading, "")) for column in columns))
    return table
