"""The charts of where the time goes: all rungs stacked, and what changed from one rung to the next.

A row keeps its colour from rung to rung. What was measured end to end is marked beside what the rows add up to, so that
rows that do not add up are seen; nothing is scaled to fit.
"""

from itertools import accumulate

from benchmarks.report.cells import Rung
from benchmarks.report.chart import Chart, Entry, Figure, bar_style, entries, rows_layout, seconds_unit, shown
from benchmarks.report.neighbours import Result, before, called, changes, levels, with_users

_TOTAL = "measured end to end"


def stacked(result: Result) -> Chart | None:
    """A bar a rung, made of its rows."""
    timed = [rung for rung in result["rungs"] if rung["time"]]
    colours = {name: place for place, name in enumerate(_by_size(timed))}
    figures = {}
    for users in levels(result):
        rungs = [rung for rung in timed if rung["users"] == users]
        if not rungs:
            continue
        unit, scale = seconds_unit([rung["time"]["e2e_s"] for rung in rungs])
        places = list(range(len(rungs)))
        data = [
            {
                "type": "bar",
                "orientation": "h",
                "x": [_seconds(rung, name, scale) for rung in rungs],
                "y": places,
                "width": 0.6,
                "hovertemplate": f"{shown(name)}: %{{x:.4g}} {unit}<extra></extra>",
                **bar_style(colours[name]),
            }
            for name in _names(rungs)
        ]
        measured = {
            "type": "scatter",
            "mode": "markers",
            "x": [rung["time"]["e2e_s"] * scale for rung in rungs],
            "y": places,
            "marker": {"color": "--ink", "symbol": "line-ns-open", "size": 24, "line": {"width": 2, "color": "--ink"}},
            "hovertemplate": f"{_TOTAL}: %{{x:.4g}} {unit}<extra></extra>",
        }
        layout = rows_layout([called(rung) for rung in rungs], f"{unit} a request", barmode="relative")
        figures[with_users(users)] = Figure([*data, measured], layout)
    legend = (*entries(colours, colours), Entry(_TOTAL, None, symbol="\N{HEAVY VERTICAL BAR}"))
    says = "A bar a rung, made of the rows of its latency. The tables have the figures."
    return Chart("Where the time of a request goes", says, figures, legend) if figures else None


def differences(result: Result) -> Chart | None:
    """From a rung to the next: the latency of the one, what each row adds or saves, the latency of the other."""
    figures = {}
    for users in levels(result):
        for rung in reversed([rung for rung in result["rungs"] if rung["time"] and rung["users"] == users]):
            earlier = before(result, rung)
            if earlier:
                figures[f"from {called(earlier)} to {called(rung)}, {with_users(users)}"] = _difference(earlier, rung)
    legend = (Entry("latency of a rung", 8), Entry("slower", 1), Entry("faster", 2))
    says = "The latency of a rung, what each row adds to it or saves on the next rung, and the latency of that one."
    return Chart("From one rung to the next", says, figures, legend) if figures else None


def _difference(earlier: Rung, rung: Rung) -> Figure:
    ends = [earlier["time"]["e2e_s"], rung["time"]["e2e_s"]]
    gained = changes(earlier, rung)
    kept = {name: seconds for name, seconds in gained.items() if abs(seconds) >= max(ends) / 1000}
    # What the rows leave open, and the rows too small to be seen, so that the steps end where the next rung begins.
    rest = ends[1] - ends[0] - sum(kept.values())
    steps = {**kept, **({"all else": rest} if abs(rest) >= max(ends) / 1000 else {})}
    unit, scale = seconds_unit(ends)
    names = [called(earlier), *steps, called(rung)]
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
    reached = [scale * value for value in accumulate((ends[0], *steps.values()))]
    low, high = min(reached), max(reached)
    if low > high / 2:  # else the steps would be too small to be seen
        pad = (high - low) / 2 or high / 20
        layout["xaxis"] |= {"title": {"text": f"{unit} a request (not from 0)"}, "range": [low - pad, high + pad]}
    return Figure([data], layout)


def _by_size(rungs: list[Rung]) -> list[str]:
    """The rows, largest share of any rung first, so that those to be seen have a colour to themselves."""
    shares: dict[str, float] = {}
    for rung in rungs:
        for row in rung["time"]["rows"]:
            share = row["seconds"] / (rung["time"]["e2e_s"] or 1.0)
            shares[row["name"]] = max(share, shares.get(row["name"], 0.0))
    return sorted(shares, key=lambda name: -shares[name])


def _names(rungs: list[Rung]) -> list[str]:
    return list(dict.fromkeys(row["name"] for rung in rungs for row in rung["time"]["rows"]))


def _seconds(rung: Rung, name: str, scale: int) -> float | None:
    found = [row["seconds"] for row in rung["time"]["rows"] if row["name"] == name]
    return found[0] * scale if found else None
