"""A chart of a report: the values that plotly.js draws, with the text that stands beside it.

The page chooses fonts and colours by the reader's theme, so a colour here is a number of the palette. Text that comes
from outside is escaped, as plotly.js reads some markup in it. A value that was not measured is null and drawn as a gap.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

COLOURS = 10
_BAR_PX = 34
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star", "triangle-down", "pentagon", "hexagon", "x")
MARKS = "●■◆▲✚★▼⬟⬢✖"  # the same, for a legend
_DASHES = ("solid", "dash", "dot", "dashdot")
_NAME_LENGTH = 26

Trace = dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """A line of the legend; without a colour it has that of the text."""

    text: str
    colour: int | None
    symbol: str = "\N{BLACK SQUARE}"


@dataclass(frozen=True)
class Figure:
    """One picture: traces and layout as plotly.js takes them."""

    data: Sequence[Trace]
    layout: Mapping[str, Any]


@dataclass(frozen=True)
class Chart:
    """A titled figure, or several to choose from by name; `caption` describes it to those who cannot see it.

    `log_axes` are those that the reader may make logarithmic: one slow rung crushes the others on a linear one.
    """

    title: str
    caption: str
    figures: Mapping[str, Figure]
    legend: Sequence[Entry] = field(default_factory=tuple)
    log_axes: str = ""


def palette(number: int) -> str:
    """The name of a colour, which the page resolves."""
    return f"--c{number % COLOURS}"


def entries(names: Iterable[str], colours: Mapping[str, int]) -> tuple[Entry, ...]:
    """A legend of bars, hatched as they are where the palette begins anew."""
    hatching = "\N{SQUARE WITH UPPER RIGHT TO LOWER LEFT FILL}"
    return tuple(
        Entry(name, colours[name] % COLOURS, *((hatching,) if colours[name] >= COLOURS else ())) for name in names
    )


def line_style(number: int) -> Trace:
    """How the line of a number looks: colour, dashes and markers of its own, so that colour alone tells nothing."""
    return {
        "line": {"color": palette(number), "dash": _DASHES[number % len(_DASHES)], "width": 2},
        "marker": {"color": palette(number), "symbol": _SYMBOLS[number % len(_SYMBOLS)], "size": 9},
    }


def bar_style(number: int) -> Trace:
    """How the bar of a number looks."""
    hatching = {"pattern": {"shape": "/", "size": 6}} if number >= COLOURS else {}
    return {"marker": {"color": palette(number), **hatching}}


def plain(text: str) -> str:
    """Text for plotly.js: short, and without markup."""
    return escape(text if len(text) <= _NAME_LENGTH else text[: _NAME_LENGTH - 1] + "\N{HORIZONTAL ELLIPSIS}")


def rows_layout(names: Sequence[str], title: str, **more: Any) -> dict[str, Any]:
    """The layout of a figure with a row a name, the first on top."""
    axis = {
        "tickmode": "array",
        "tickvals": list(range(len(names))),
        "ticktext": [plain(name) for name in names],
        "range": [len(names) - 0.5, -0.5],
        "automargin": True,
        "zeroline": False,
        "showgrid": False,
    }
    return {"height": 80 + _BAR_PX * len(names), "yaxis": axis, "xaxis": axis_of(title), "showlegend": False, **more}


def axis_of(title: str, **more: Any) -> dict[str, Any]:
    """An axis that begins at zero."""
    return {"title": {"text": title}, "rangemode": "tozero", "automargin": True, **more}


def interval(values: Sequence[float | None], ends: Sequence[Sequence[float] | None]) -> dict[str, Any]:
    """Error bars from values to the ends of their intervals; nothing where there is none."""
    pairs = list(zip(values, ends, strict=True))
    return {
        "type": "data",
        "symmetric": False,
        "array": [end[1] - value if value is not None and end else None for value, end in pairs],
        "arrayminus": [value - end[0] if value is not None and end else None for value, end in pairs],
        "thickness": 1.5,
    }


def seconds_unit(seconds: Sequence[float]) -> tuple[str, int]:
    """The unit to draw times in, and how many of it are a second."""
    return ("s", 1) if max(seconds) >= 10 else ("ms", 1000)
