"""The cells of a report's tables: how a figure of a rung becomes words.

Each function makes one that takes a rung and gives a cell, so that a table is a list of titles and where their figures
lie. What is null in the result stays None, whatever it would be shown as; no figure is rounded down to nothing.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

Rung = Mapping[str, Any]
Cell = str | None
Column = Callable[[Rung], Cell]
Form = Callable[[Any], str]


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


def at(thing: Any, *path: str) -> Any:
    """What lies at the path; None where something on the way is null or not there."""
    for key in path:
        thing = thing.get(key) if thing is not None else None
    return thing


def of(*path: str, form: Form = number) -> Column:
    """The figure at the path."""

    def cell(rung: Rung) -> Cell:
        value = at(rung, *path)
        return None if value is None else form(value)

    return cell


def rate(*path: str) -> Column:
    """A rate and its interval."""
    return of(*path, form=lambda found: f"{number(found['value'])} ({_interval(found['ci'], number)})")


def latency(key: str, which: str) -> Column:
    """One figure of a distribution and its interval, in milliseconds."""

    def cell(rung: Rung) -> Cell:
        found = rung["figures"][key]
        if found is None or found[which] is None:
            return None
        return f"{milliseconds(found[which])} ({_interval(found[f'{which}_ci'], milliseconds)})"

    return cell


def over_passes(fold: Callable[[list[Any]], Any], *path: str, form: Form = number) -> Column:
    """A figure of every pass's utilisation, folded into one (`mean`, `max`)."""
    return lambda rung: folded(fold, (at(window, *path) for window in rung["utilisation"]), form)


def folded(fold: Callable[[list[Any]], Any], values: Iterable[Any], form: Form = number) -> Cell:
    """Those values that were measured, folded into one."""
    known = [value for value in values if value is not None]
    return form(fold(known)) if known else None


def mean(values: list[float]) -> float:
    """The mean of what there is."""
    return sum(values) / len(values)


def _interval(ends: list[float], form: Form) -> str:
    return f"{form(ends[0])} to {form(ends[1])}"
