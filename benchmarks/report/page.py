"""report.html: the report of a result as one file with everything in it, its charts drawn by plotly.js.

It opens from a disk without a network, and its own policy forbids the browser to ask for anything. Jinja2 escapes every
value; the only text that it takes as it is, is plotly.js.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import jinja2
from markupsafe import Markup

from benchmarks.report import charts, hardware_tables, series_charts, tables, time_charts
from benchmarks.report.chart import Chart
from benchmarks.report.neighbours import Result
from benchmarks.report.tables import Table
from benchmarks.report.words import about, confirmed, verdict

_TEMPLATE = "page.html.j2"


@dataclass(frozen=True)
class Section:
    """A heading, and what stands under it; a chart is None where nothing was measured, which its table then says.

    `narrow` tables fit beside each other.
    """

    title: str
    charts: Sequence[Chart | None]
    tables: Sequence[Table]
    narrow: bool = False


def html(result: Result) -> str:
    """The page."""
    from plotly.offline import get_plotlyjs

    found = sections(result)
    drawn = [chart for section in found for chart in section.charts if chart]
    return (
        _environment()
        .get_template(_TEMPLATE)
        .render(
            result=result,
            verdict=verdict(result),
            confirmed=confirmed(result),
            sections=found,
            about=about(result),
            settings=json.dumps(result["settings"], indent=1),
            numbers={chart.title: number for number, chart in enumerate(drawn)},
            figures=[[asdict(figure) for figure in chart.figures.values()] for chart in drawn],
            plotly=Markup(get_plotlyjs()),  # noqa: S704 # the library, not words from outside
        )
    )


def sections(result: Result) -> list[Section]:
    """What the page shows between the verdict and the settings."""
    latency_charts = [charts.latency(result, key) for key in ("e2e_s", "ttft_s", "tpot_s", "itl_s")]
    return [
        Section("Throughput", [charts.ladder(result)], [tables.ladder(result)]),
        Section("Latency", [charts.throughput_against_latency(result), *latency_charts], tables.latencies(result)),
        Section(
            "Where the time goes",
            [time_charts.stacked(result), time_charts.differences(result)],
            tables.times(result),
            narrow=True,
        ),
        Section("Requests and answers", [], [tables.requests(result), tables.generator(result), tables.parity(result)]),
        Section(
            "Hardware",
            series_charts.series(result),
            [hardware_tables.processors(result), hardware_tables.gpus(result), tables.efficiency(result)],
        ),
    ]


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
