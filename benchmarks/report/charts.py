"""The charts of what a result measured of its requests: throughput and latency.

One figure for each number of users, the one with the most rungs first. A rung without a value is left out of a figure,
and a chart without a figure is None: the page then says that nothing was measured.
"""

from collections.abc import Iterator

from benchmarks.report.cells import Rung
from benchmarks.report.chart import (
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
    rows_layout,
    seconds_unit,
    shown,
)
from benchmarks.report.neighbours import Result, called, levels, ratio, throughput_unit, with_users
from benchmarks.report.tables import LATENCIES

_TIMES = "\N{MULTIPLICATION SIGN}"
_FIGURES = ("mean", "p50", "p90", "p99")


def ladder(result: Result) -> Chart | None:
    """A bar a rung: throughput, its interval, each pass, and how it stands to the first."""
    key, unit = throughput_unit(result)
    figures = {}
    for users, rungs in _by_users(result, key):
        rates = [rung["figures"][key] for rung in rungs]
        values = [rate["value"] for rate in rates]
        places = list(range(len(rungs)))
        bars = {
            "type": "bar",
            "orientation": "h",
            "x": values,
            "y": places,
            "width": 0.6,
            "error_x": {**interval(values, [rate["ci"] for rate in rates]), "color": "--ink"},
            "hovertemplate": f"%{{x:.4g}} {unit}<extra></extra>",
            **bar_style(0),
        }
        passes = {
            "type": "scatter",
            "mode": "markers",
            "x": [value for rate in rates for value in rate["passes"]],
            "y": [place for place, rate in zip(places, rates, strict=True) for _ in rate["passes"]],
            "marker": {"color": "--paper", "size": 7, "line": {"color": "--ink", "width": 1.5}},
            "hovertemplate": "a pass: %{x:.4g}<extra></extra>",
        }
        ratios = [ratio(result, rung) for rung in rungs]
        notes = [
            {"text": f"{_TIMES}{value:.2f}", "x": 1, "xref": "paper", "xanchor": "left", "xshift": 6, "y": place}
            for place, value in zip(places, ratios, strict=True)
            if value is not None
        ]
        layout = rows_layout([called(rung) for rung in rungs], unit, margin={"r": 58})
        figures[users] = Figure([bars, passes], {**layout, "annotations": notes})
    legend = (Entry("all passes, with the 95 % interval", 0), Entry("one pass", 0, symbol="\N{WHITE CIRCLE}"))
    says = f"Bars of {unit} a rung, with intervals; {_TIMES} is the ratio to the first rung. The table has the figures."
    return Chart("Throughput of each rung", says, figures, legend) if figures else None


def latency(result: Result, key: str) -> Chart | None:
    """Marks a rung: mean and percentiles with their intervals."""
    figures = {}
    for users, rungs in _by_users(result, key):
        found = [rung["figures"][key] for rung in rungs]
        unit, scale = seconds_unit([one["mean"] for one in found])
        data = []
        for place, which in enumerate(_FIGURES):
            values = [None if one[which] is None else one[which] * scale for one in found]
            ends = [one[f"{which}_ci"] and [end * scale for end in one[f"{which}_ci"]] for one in found]
            style = line_style(place)
            data.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "x": values,
                    "y": [row + (place - 1.5) * 0.16 for row in range(len(rungs))],
                    "error_x": {**interval(values, ends), "color": palette(place)},
                    "hovertemplate": f"{which} %{{x:.4g}} {unit}<extra></extra>",
                    "marker": style["marker"],
                }
            )
        figures[users] = Figure(data, rows_layout([called(rung) for rung in rungs], unit))
    measured = [which for which in _FIGURES if any((rung["figures"][key] or {}).get(which) for rung in result["rungs"])]
    legend = [Entry(which, _FIGURES.index(which), symbol=MARKS[_FIGURES.index(which)]) for which in measured]
    says = f"{LATENCIES[key]} of each rung: {', '.join(measured)}, with 95 % intervals. The table has the figures."
    return Chart(LATENCIES[key], says, figures, legend) if figures else None


def throughput_against_latency(result: Result) -> Chart | None:
    """A point a rung, and a line a rung where it was measured with several numbers of users."""
    rate_key, unit = throughput_unit(result)
    names = list(dict.fromkeys(rung["name"] for rung in result["rungs"] if rung["figures"][rate_key]))
    figures = {}
    for key in ("e2e_s", "ttft_s", "tpot_s"):
        both = [rung for rung in result["rungs"] if rung["figures"][rate_key] and rung["figures"][key]]
        if not both:
            continue
        which = "p50" if all(rung["figures"][key]["p50"] is not None for rung in both) else "mean"
        words, scale = seconds_unit([rung["figures"][key][which] for rung in both])
        data = []
        for place, name in enumerate(names):
            points = [rung for rung in both if rung["name"] == name]
            data.append(
                {
                    "type": "scatter",
                    "mode": "lines+markers+text" if len(levels(result)) > 1 else "markers",
                    "x": [rung["figures"][key][which] * scale for rung in points],
                    "y": [rung["figures"][rate_key]["value"] for rung in points],
                    "text": [str(rung["users"]) for rung in points],
                    "textposition": "top center",
                    "hovertemplate": f"{shown(name)}, %{{text}} users: %{{x:.4g}} {words}, %{{y:.4g}}<extra></extra>",
                    **line_style(place),
                }
            )
        title = f"{key.removesuffix('_s')} {which}, {words}"
        layout = {"height": 380, "xaxis": axis_of(title), "yaxis": axis_of(unit), "showlegend": False}
        figures[key.removesuffix("_s")] = Figure(data, layout)
    several = "; the numbers are users" if len(levels(result)) > 1 else ""
    says = f"Throughput ({unit}) against latency, a point a rung{several}. Up and to the left is better."
    legend = [Entry(name, place % COLOURS, symbol=MARKS[place % len(MARKS)]) for place, name in enumerate(names)]
    return Chart("Throughput against latency", says, figures, legend) if figures else None


def _by_users(result: Result, key: str) -> Iterator[tuple[str, list[Rung]]]:
    """The rungs that have the figure, for each number of users."""
    for users in levels(result):
        rungs = [rung for rung in result["rungs"] if rung["users"] == users and rung["figures"][key]]
        if rungs:
            yield with_users(users), rungs
