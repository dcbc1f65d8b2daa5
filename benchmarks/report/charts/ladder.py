"""The charts of the ladder: throughput and latency.

One figure for each number of users, the one with the most rungs first. A rung without a value is left out of a figure,
and a chart without a figure is None: the page then says that nothing was measured.
"""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from benchmarks.analysis.figures import Distribution, Rate
from benchmarks.analysis.summary import RungSummary
from benchmarks.report.charts.base import (
    COLOURS,
    MARKS,
    Chart,
    Entry,
    Figure,
    axis_of,
    bar_style,
    interval,
    line_style,
    palette,
    plain,
    rows_layout,
    seconds_unit,
)
from benchmarks.report.latency import E2E, STATISTICS, TPOT, TTFT, Latency
from benchmarks.report.neighbours import levels, ratio, throughput, throughput_unit, title_of, with_users
from benchmarks.result import Result

T = TypeVar("T")
_TIMES = "\N{MULTIPLICATION SIGN}"


def ladder(result: Result) -> Chart | None:
    """A bar a rung: throughput, its interval, each pass, and how it stands to the first."""
    unit = throughput_unit(result)
    figures = {}
    for users, measured in _by_users(result, lambda rung: throughput(result, rung)):
        rates = [rate for _, rate in measured]
        places = list(range(len(measured)))
        ratios = [ratio(result, rung) for rung, _ in measured]
        notes = [
            {"text": f"{_TIMES}{value:.2f}", "x": 1, "xref": "paper", "xanchor": "left", "xshift": 6, "y": place}
            for place, value in zip(places, ratios, strict=True)
            if value is not None
        ]
        layout = rows_layout([title_of(rung) for rung, _ in measured], unit, margin={"r": 58})
        figures[users] = Figure([_bars(rates, places, unit), _passes(rates, places)], {**layout, "annotations": notes})
    legend = (Entry("all passes, with the 95 % interval", 0), Entry("one pass", 0, symbol="\N{WHITE CIRCLE}"))
    caption = (
        f"Bars of {unit} a rung, with intervals; {_TIMES} is the ratio to the first rung. The table has the figures."
    )
    return Chart("Throughput of each rung", caption, figures, legend, "x") if figures else None


def latency(result: Result, kind: Latency) -> Chart | None:
    """Marks a rung: mean and percentiles with their intervals."""
    figures = {}
    for users, measured in _by_users(result, lambda rung: kind.read(rung.figures)):
        distributions = [distribution for _, distribution in measured]
        unit, scale = seconds_unit([distribution.mean for distribution in distributions])
        traces = _statistics(distributions, unit, scale)
        figures[users] = Figure(traces, rows_layout([title_of(rung) for rung, _ in measured], unit))
    distributions = [distribution for rung in result.rungs if (distribution := kind.read(rung.figures))]
    present = [
        place
        for place, statistic in enumerate(STATISTICS)
        if any(distribution.value(statistic) for distribution in distributions)
    ]
    legend = [Entry(STATISTICS[place], place, symbol=MARKS[place]) for place in present]
    names = ", ".join(STATISTICS[place] for place in present)
    caption = f"{kind.title} of each rung: {names}, with 95 % intervals. The table has the figures."
    return Chart(kind.title, caption, figures, legend, "x") if figures else None


def throughput_against_latency(result: Result) -> Chart | None:
    """A point a rung, and a line a rung where it was measured with several numbers of users."""
    unit = throughput_unit(result)
    names = list(dict.fromkeys(rung.name for rung in result.rungs if throughput(result, rung)))
    figures = {}
    for kind in (E2E, TTFT, TPOT):
        points = [
            (rung, rate.value, distribution)
            for rung in result.rungs
            if (rate := throughput(result, rung)) and (distribution := kind.read(rung.figures))
        ]
        if points:
            figures[kind.name] = _scatter(points, names, kind, unit, several=len(levels(result)) > 1)
    several = "; the numbers are users" if len(levels(result)) > 1 else ""
    caption = f"Throughput ({unit}) against latency, a point a rung{several}. Up and to the left is better."
    legend = [Entry(name, place % COLOURS, symbol=MARKS[place % len(MARKS)]) for place, name in enumerate(names)]
    return Chart("Throughput against latency", caption, figures, legend, "xy") if figures else None


def _bars(rates: list[Rate], places: list[int], unit: str) -> dict[str, Any]:
    values = [rate.value for rate in rates]
    return {
        "type": "bar",
        "orientation": "h",
        "x": values,
        "y": places,
        "width": 0.6,
        "error_x": {**interval(values, [rate.ci for rate in rates]), "color": "--ink"},
        "hovertemplate": f"%{{x:.4g}} {unit}<extra></extra>",
        **bar_style(0),
    }


def _passes(rates: list[Rate], places: list[int]) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [value for rate in rates for value in rate.passes],
        "y": [place for place, rate in zip(places, rates, strict=True) for _ in rate.passes],
        "marker": {"color": "--paper", "size": 7, "line": {"color": "--ink", "width": 1.5}},
        "hovertemplate": "a pass: %{x:.4g}<extra></extra>",
    }


def _statistics(distributions: list[Distribution], unit: str, scale: int) -> list[dict[str, Any]]:
    """A trace for the mean and each percentile, beside each other in the row of a rung."""
    traces = []
    for place, statistic in enumerate(STATISTICS):
        values = [_scaled(distribution.value(statistic), scale) for distribution in distributions]
        intervals = [distribution.interval(statistic) for distribution in distributions]
        ends = [ends and [end * scale for end in ends] for ends in intervals]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": values,
                "y": [row + (place - 1.5) * 0.16 for row in range(len(distributions))],
                "error_x": {**interval(values, ends), "color": palette(place)},
                "hovertemplate": f"{statistic} %{{x:.4g}} {unit}<extra></extra>",
                "marker": line_style(place)["marker"],
            }
        )
    return traces


def _scaled(value: float | None, scale: int) -> float | None:
    return None if value is None else value * scale


def _scatter(
    points: list[tuple[RungSummary, float, Distribution]], names: list[str], kind: Latency, unit: str, *, several: bool
) -> Figure:
    has_median = all(distribution.p50 is not None for _, _, distribution in points)
    latencies_s = [distribution.p50 if has_median else distribution.mean for _, _, distribution in points]
    time_unit, scale = seconds_unit([seconds for seconds in latencies_s if seconds is not None])
    data = []
    for place, name in enumerate(names):
        line = [
            (rung, rate, _scaled(seconds, scale))
            for (rung, rate, _), seconds in zip(points, latencies_s, strict=True)
            if rung.name == name
        ]
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers+text" if several else "markers",
                "x": [seconds for _, _, seconds in line],
                "y": [rate for _, rate, _ in line],
                "text": [rung.users for rung, _, _ in line],
                "hovertext": [with_users(rung.users) for rung, _, _ in line],
                "textposition": "top center",
                "hovertemplate": f"{plain(name)}, %{{hovertext}}: %{{x:.4g}} {time_unit}, %{{y:.4g}}<extra></extra>",
                **line_style(place),
            }
        )
    title = f"{kind.name} {'p50' if has_median else 'mean'}, {time_unit}"
    return Figure(data, {"height": 380, "xaxis": axis_of(title), "yaxis": axis_of(unit), "showlegend": False})


def _by_users(
    result: Result, read: Callable[[RungSummary], T | None]
) -> Iterator[tuple[str, list[tuple[RungSummary, T]]]]:
    """The rungs that have the figure, with it, for each number of users."""
    for users in levels(result):
        measured = [(rung, value) for rung in result.rungs if rung.users == users and (value := read(rung))]
        if measured:
            yield with_users(users), measured
