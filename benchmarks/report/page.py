"""report.html: the report of a result as one self-contained file, its charts drawn by plotly.js.

It opens from a disk without a network, and its own policy forbids the browser to load anything. Jinja2 escapes every
value but plotly.js itself.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import jinja2
import msgspec
from markupsafe import Markup

from benchmarks.report.charts.base import Chart
from benchmarks.report.charts.ladder import ladder as ladder_chart
from benchmarks.report.charts.ladder import latency, throughput_against_latency
from benchmarks.report.charts.series import series
from benchmarks.report.charts.time import differences, stacked
from benchmarks.report.latency import E2E, ITL, TPOT, TTFT
from benchmarks.report.sentences import TERMS, about, cluster, confirmed, others, verdict
from benchmarks.report.tables import hardware, ladder
from benchmarks.report.tables.base import Table
from benchmarks.report.tables.time import times
from benchmarks.result import Result

_TEMPLATE = "page.html.j2"


@dataclass(frozen=True)
class Section:
    """A heading with its charts and tables; a chart is None where nothing was measured, and its table says so.

    `narrow` tables fit beside each other.
    """

    title: str
    charts: Sequence[Chart | None]
    tables: Sequence[Table]
    narrow: bool = False


def html(result: Result) -> str:
    """The page."""
    from plotly.offline import get_plotlyjs

    parts = sections(result)
    charts = [chart for part in parts for chart in part.charts if chart]
    return (
        _environment()
        .get_template(_TEMPLATE)
        .render(
            result=result,
            verdict=verdict(result),
            confirmed=confirmed(result),
            sections=parts,
            cluster=cluster(result),
            others=others(result),
            about=about(result),
            terms=TERMS,
            settings=json.dumps(msgspec.to_builtins(result.settings), indent=1),
            numbers={chart.title: number for number, chart in enumerate(charts)},
            figures=[[asdict(figure) for figure in chart.figures.values()] for chart in charts],
            plotly=Markup(get_plotlyjs()),  # noqa: S704 # the library, not text from outside
        )
    )


def sections(result: Result) -> list[Section]:
    """What the page shows between the verdict and the settings."""
    latency_charts = [latency(result, kind) for kind in (E2E, TTFT, TPOT, ITL)]
    answers = [ladder.requests(result), ladder.generator(result), ladder.parity(result)]
    usage = [hardware.processors(result), *hardware.gpus(result), ladder.efficiency(result)]
    return [
        Section("Throughput", [ladder_chart(result)], [ladder.ladder(result)]),
        Section("Latency", [throughput_against_latency(result), *latency_charts], ladder.latencies(result)),
        Section("Where the time goes", [stacked(result), differences(result)], times(result), narrow=True),
        Section("Requests and answers", [], answers),
        Section("Hardware", series(result), usage),
    ]


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
