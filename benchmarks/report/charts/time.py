"""The charts of where the time goes: all rungs stacked, and what changed from one rung to the next.

A row keeps its colour from rung to rung. The measured latency is marked beside the sum of the rows, which shows rows
that do not add up; nothing is scaled to fit.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate

from benchmarks.analysis.summary import RungSummary, TimeSummary
from benchmarks.report.charts.base import Chart, Entry, Figure, bar_style, entries, plain, rows_layout, seconds_unit
from benchmarks.report.neighbours import before, changes, levels, row_labels, title_of, with_users
from benchmarks.result import Result

_TOTAL = "measured end to end"
_Timed = tuple[RungSummary, TimeSummary]


def stacked(result: Result) -> Chart | None:
    """A bar a rung, made of its rows."""
    timed = [(rung, rung.time) for rung in result.rungs if rung.time]
    labels = row_labels([rung for rung, _ in timed])
    colours = {key: place for place, key in enumerate(_by_share([time for _, time in timed]))}
    figures = {}
    for users in levels(result):
        if level := [(rung, time) for rung, time in timed if rung.users == users]:
            figures[with_users(users)] = _bars(level, colours, labels)
    legend = (
        *entries([labels[key] for key in colours], {labels[key]: place for key, place in colours.items()}),
        Entry(_TOTAL, None, symbol="\N{HEAVY VERTICAL BAR}"),
    )
    caption = "A bar a rung, made of the rows of its latency. The tables have the figures."
    return Chart("Where the time of a request goes", caption, figures, legend) if figures else None


def differences(result: Result) -> Chart | None:
    """From a rung to the next: the latency of the one, what each row adds or saves, the latency of the other."""
    figures = {}
    for users in levels(result):
        for rung in reversed([rung for rung in result.rungs if rung.time and rung.users == users]):
            earlier = before(result, rung)
            if earlier and earlier.time and rung.time:
                title = f"from {title_of(earlier)} to {title_of(rung)}, {with_users(users)}"
                figures[title] = _difference((earlier, earlier.time), (rung, rung.time))
    legend = (Entry("latency of a rung", 8), Entry("slower", 1), Entry("faster", 2))
    caption = "The latency of a rung, what each row adds to it or saves on the next rung, and the latency of that one."
    return Chart("From one rung to the next", caption, figures, legend) if figures else None


def _bars(level: Sequence[_Timed], colours: dict[str, int], labels: Mapping[str, str]) -> Figure:
    unit, scale = seconds_unit([time.e2e_s for _, time in level])
    places = list(range(len(level)))
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "x": [_seconds(time, key, scale) for _, time in level],
            "y": places,
            "width": 0.6,
            "hovertemplate": f"{plain(labels[key])}: %{{x:.4g}} {unit}<extra></extra>",
            **bar_style(colours[key]),
        }
        for key in dict.fromkeys(row.key for _, time in level for row in time.rows)
    ]
    total = {
        "type": "scatter",
        "mode": "markers",
        "x": [time.e2e_s * scale for _, time in level],
        "y": places,
        "marker": {"color": "--ink", "symbol": "line-ns-open", "size": 24, "line": {"width": 2, "color": "--ink"}},
        "hovertemplate": f"{_TOTAL}: %{{x:.4g}} {unit}<extra></extra>",
    }
    layout = rows_layout([title_of(rung) for rung, _ in level], f"{unit} a request", barmode="relative")
    return Figure([*data, total], layout)


def _difference(earlier: _Timed, later: _Timed) -> Figure:
    ends = [earlier[1].e2e_s, later[1].e2e_s]
    gains = changes(earlier[0], later[0])
    labels = row_labels([later[0], earlier[0]])
    large = {labels[key]: seconds for key, seconds in gains.items() if abs(seconds) >= max(ends) / 1000}
    # What the rows leave open, and the rows too small to be seen, so that the steps end where the next rung begins.
    remainder = ends[1] - ends[0] - sum(large.values())
    steps = {**large, **({"all else": remainder} if abs(remainder) >= max(ends) / 1000 else {})}
    unit, scale = seconds_unit(ends)
    names = [title_of(earlier[0]), *steps, title_of(later[0])]
    data = {
        "type": "waterfall",
        "orientation": "h",
        "measure": ["absolute", *("relative" for _ in steps), "absolute"],
        "x": [seconds * scale for seconds in (ends[0], *steps.values(), ends[1])],
        "y": list(range(len(names))),
        "width": 0.6,
        "increasing": bar_style(1),
        "decreasing": bar_style(2),
        "totals": bar_style(8),
        "connector": {"line": {"color": "--ink", "width": 1}},
        "hovertemplate": f"%{{delta:.4g}} {unit}<extra></extra>",
    }
    layout = rows_layout(names, f"{unit} a request")
    heights = [scale * value for value in accumulate((ends[0], *steps.values()))]
    low, high = min(heights), max(heights)
    if low > high / 2:  # else the steps would be too small to be seen
        pad = (high - low) / 2 or high / 20
        layout["xaxis"] |= {"title": {"text": f"{unit} a request (not from 0)"}, "range": [low - pad, high + pad]}
    return Figure([data], layout)


def _by_share(times: Sequence[TimeSummary]) -> list[str]:
    """The keys of the rows, largest share of any rung first, so that the large ones have a colour to themselves."""
    shares: dict[str, float] = {}
    for time in times:
        for row in time.rows:
            shares[row.key] = max(row.seconds / (time.e2e_s or 1.0), shares.get(row.key, 0.0))
    return sorted(shares, key=lambda key: -shares[key])


def _seconds(time: TimeSummary, key: str, scale: int) -> float | None:
    seconds = next((row.seconds for row in time.rows if row.key == key), None)
    return None if seconds is None else seconds * scale
