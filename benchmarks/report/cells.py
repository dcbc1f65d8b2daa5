"""The cells of a report's tables: how a figure becomes text.

A column is a function from a rung to a cell, so a table is a list of titles and where their figures lie. What is null
in the result stays None. A figure is never rounded to 0.
"""

from collections.abc import Callable, Iterable
from typing import TypeVar

from benchmarks.analysis.figures import Rate, Statistic
from benchmarks.analysis.hardware import ModelWindow, Window
from benchmarks.analysis.summary import RungSummary
from benchmarks.report.latency import Latency

S = TypeVar("S")
T = TypeVar("T")
Cell = str | None
Column = Callable[[RungSummary], Cell]


def number(value: float) -> str:
    """A number, to about three digits."""
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}"
    if size >= 100:
        return f"{value:.1f}"
    if value == 0:
        return "0"
    if size >= 1:
        return f"{value:.2f}"
    if size >= 0.001:
        return f"{value:.3g}"
    return "<0.001" if value > 0 else ">-0.001"


def whole(value: int) -> str:
    """A count."""
    return f"{value:,}"


def percent(value: float) -> str:
    """A share, in percent."""
    return f"{value:.1%}"


def milliseconds(value: float) -> str:
    """Seconds, in milliseconds."""
    return number(value * 1000)


def gibibytes(value: int) -> str:
    """Bytes, in GiB."""
    return number(value / 2**30)


def of(read: Callable[[S], T | None], form: Callable[[T], str]) -> Callable[[S], Cell]:
    """A figure of a subject, in this form."""

    def cell(subject: S) -> Cell:
        value = read(subject)
        return None if value is None else form(value)

    return cell


def rate(read: Callable[[RungSummary], Rate | None]) -> Column:
    """A rate and its interval."""
    return of(read, lambda value: f"{number(value.value)} ({_interval(value.ci, number)})")


def latency(kind: Latency, statistic: Statistic) -> Column:
    """One figure of a latency and its interval, in milliseconds."""

    def cell(rung: RungSummary) -> Cell:
        distribution = kind.read(rung.figures)
        value = distribution.value(statistic) if distribution else None
        interval = distribution.interval(statistic) if distribution else None
        if value is None or interval is None:
            return None
        return f"{milliseconds(value)} ({_interval(interval, milliseconds)})"

    return cell


def over_passes(fold: Callable[[list[T]], T], read: Callable[[Window], T | None], form: Callable[[T], str]) -> Column:
    """A figure of the hardware in every pass, folded into one (`mean`, `max`)."""
    return lambda rung: folded(fold, (read(window) for window in rung.utilisation), form)


def of_processes(
    fold: Callable[[list[T]], T], read: Callable[[ModelWindow], T | None], form: Callable[[T], str]
) -> Column:
    """A figure of the rung's processes in every pass, folded into one."""
    return over_passes(fold, lambda window: read(window.rung) if window.rung else None, form)


def folded(fold: Callable[[list[T]], T], values: Iterable[T | None], form: Callable[[T], str]) -> Cell:
    """The values that were measured, folded into one."""
    measured = [value for value in values if value is not None]
    return form(fold(measured)) if measured else None


def mean(values: list[float]) -> float:
    """The mean of the values."""
    return sum(values) / len(values)


def _interval(ends: list[float], form: Callable[[float], str]) -> str:
    return f"{form(ends[0])} to {form(ends[1])}"
