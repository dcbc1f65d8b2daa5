"""The report of a result: what is wrong comes first, gaps are said, words from outside never become markup."""

import io
import json
import re

import pytest
from msgspec.structs import replace
from rich.console import Console

from benchmarks import report
from benchmarks.analysis.summary import RowSummary, RungSummary, TimeSummary
from benchmarks.report import terminal
from benchmarks.report.cells import number
from benchmarks.report.charts import ladder as ladder_charts
from benchmarks.report.charts import series as series_charts
from benchmarks.report.charts import time as time_charts
from benchmarks.report.latency import ITL
from benchmarks.report.neighbours import changes, ratio
from benchmarks.report.sentences import cluster, others
from benchmarks.report.tables import ladder as ladder_tables
from benchmarks.report.tables import time as time_tables
from benchmarks.result import Result
from tests.benchmarks.report.conftest import HOSTILE


def test_a_result_that_is_not_valid_opens_with_its_findings(result: Result) -> None:
    text = report.markdown(result)
    assert text.index("NOT VALID") < text.index("41%") < text.index("Verdict") < text.index("## The ladder")
    assert "NOT VALID" not in report.markdown(replace(result, valid=True, findings=[]))


def test_words_from_outside_never_become_markup(result: Result) -> None:
    text = report.markdown(result)
    outside = text[: text.index("```json")]
    assert "<" not in outside.replace("<br>", "")
    assert r"\*way\*" in outside
    assert text.count("```") == 2


def test_a_terminal_shows_a_name_in_brackets_as_it_is(result: Result) -> None:
    console = Console(record=True, file=io.StringIO(), width=300)
    rungs = [replace(rung, name="model[onnxruntime]") for rung in result.rungs]
    terminal.show(replace(result, rungs=rungs), console)
    assert console.export_text().count("model[onnxruntime]") > len(rungs)


def test_a_terminal_compares_a_rung_with_the_first_of_as_many_users(result: Result) -> None:
    table = terminal.ladder_table(result)
    (column,) = [column for column in table.columns if column.header == "x first"]
    assert list(column.cells) == ["1.00", "1.00", "-", "1.10", "1.78", "1.05", "1.69"]


def test_an_open_load_is_shown_without_a_number_of_users(result: Result) -> None:
    opened = replace(result, rungs=[replace(rung, users=None) for rung in result.rungs if rung.users == 8])
    console = Console(record=True, file=io.StringIO(), width=300)
    terminal.show(opened, console)
    for text in (console.export_text(), report.markdown(opened)):
        assert "open load" in text
        assert "8 users" not in text
    chart = ladder_charts.ladder(opened)
    assert chart is not None
    assert list(chart.figures) == ["open load"]
    assert report.html(opened)


def test_a_gap_is_said_and_never_a_zero(result: Result) -> None:
    table = ladder_tables.ladder(result)
    nothing = next(row for row in table.rows if row[0] and row[0].startswith("https"))
    assert nothing[2:] == (None,) * len(nothing[2:])
    assert "| not measured |" in report.markdown(result)


def test_a_column_without_any_value_is_named_and_left_out(result: Result) -> None:
    table = ladder_tables.efficiency(result)
    assert table.absent == ("cost of a million output tokens",)
    assert "cost of a million output tokens" not in table.header


def test_a_latency_that_nobody_measured_is_not_measured(result: Result) -> None:
    itl = next(table for table in ladder_tables.latencies(result) if "itl" in table.title)
    assert itl.empty
    assert (itl.gap, itl.note) == ("Not measured.", "")
    assert ladder_charts.latency(result, ITL) is None


def test_throughput_is_compared_at_the_same_number_of_users(result: Result) -> None:
    found = {(rung.name, rung.users): ratio(result, rung) for rung in result.rungs}
    assert found["vllm", 1] == pytest.approx(22 / 20)
    assert found["vllm", 8] == pytest.approx(160 / 90)
    assert found["transformers", 8] == 1
    assert result.rungs[2].name.startswith("https")
    assert found[result.rungs[2].name, 8] is None


def test_the_changes_of_the_rows_add_up_to_the_change_of_the_latency(result: Result) -> None:
    vllm, litport = result.rungs[4], result.rungs[6]
    gained = changes(vllm, litport)
    assert gained["front door"] == 0.002
    assert litport.time is not None
    assert vllm.time is not None
    assert sum(gained.values()) == pytest.approx(litport.time.e2e_s - vllm.time.e2e_s)


def test_where_the_time_goes_names_the_rung_before_and_rows_of_only_one_of_the_two(result: Result) -> None:
    vllm = next(table for table in time_tables.times(result) if table.title == "vllm, 8 users")
    assert vllm.header == ("row", "ms a request", "share", "change, ms")
    assert ("scheduler queue", "50.00", "10.0%", "+50.00") in vllm.rows
    assert ("loop", "-", "-", "+1.00") in vllm.rows
    assert vllm.rows[-1][0] == "measured end to end"
    assert "9 requests, the client 8" in vllm.note
    assert "Change: from transformers (batch 4)." in vllm.note


def test_a_rung_that_was_not_broken_down_is_skipped_by_the_next(result: Result) -> None:
    assert result.rungs[2].time is None
    chart = time_charts.differences(result)
    assert chart is not None
    assert list(chart.figures) == [
        "from vllm to litport, 8 users",
        "from transformers (batch 4) to vllm, 8 users",
        "from vllm to litport, 1 user",
        "from transformers to vllm, 1 user",
    ]


def test_a_waterfall_ends_at_the_latency_of_the_next_rung(result: Result) -> None:
    chart = time_charts.differences(result)
    assert chart is not None
    for figure in chart.figures.values():
        (trace,) = figure.data
        *steps, end = trace["x"]
        assert sum(steps) == pytest.approx(end)


def test_cores_are_computed_between_samples_and_unknown_where_a_counter_fell(result: Result) -> None:
    cores = next(chart for chart in series_charts.series(result) if "cores" in chart.title)
    lines = cores.figures["8 users, pass 1"].data
    served = next(line for line in lines if len(line["x"]) == 3)
    assert served["y"] == [None, 2.0, None]


def test_charts_of_gpus_are_there_only_where_a_gpu_was_measured(result: Result) -> None:
    titles = {chart.title for chart in series_charts.series(result)}
    assert {"GPU busy", "GPU power", "GPU memory"} <= titles
    assert "GPU: multiprocessors in use" not in titles
    without = [
        replace(rung, series=[[replace(sample, gpus=()) for sample in samples] for samples in rung.series])
        for rung in result.rungs
    ]
    assert not any("GPU" in chart.title for chart in series_charts.series(replace(result, rungs=without)))


def test_a_chart_has_a_figure_for_each_number_of_users_and_leaves_out_what_was_not_measured(result: Result) -> None:
    chart = ladder_charts.ladder(result)
    assert chart is not None
    assert list(chart.figures) == ["8 users", "1 user"]
    assert chart.figures["8 users"].layout["yaxis"]["ticktext"] == ["transformers (batch 4)", "vllm", "litport"]


def test_names_in_charts_are_escaped_and_short(result: Result) -> None:
    first, *others = result.rungs
    chart = ladder_charts.ladder(replace(result, rungs=[replace(first, name=HOSTILE + "x" * 99), *others]))
    assert chart is not None
    (label,) = [text for text in chart.figures["1 user"].layout["yaxis"]["ticktext"] if "script" in text]
    assert "<" not in label
    assert label.endswith("…")


def test_a_result_of_nothing_makes_a_report(result: Result) -> None:
    bare = replace(result, rungs=[], verdict=None, confirmed=None)
    assert "There is none" in report.markdown(bare)
    assert "There is none" in report.html(bare)


def test_a_result_of_rungs_without_any_figure_makes_a_report(result: Result) -> None:
    nothing = replace(result, rungs=[result.rungs[2]])
    assert "Not measured." in report.markdown(nothing)
    assert 'class="chart"' not in report.html(nothing)


def test_the_page_escapes_every_value(result: Result) -> None:
    page = report.html(result)
    assert "<script>alert" not in page
    assert "onerror=alert(1)>" not in page
    assert page.count("</script>") == 3


def test_the_page_names_nothing_that_a_browser_would_load(result: Result) -> None:
    page = report.html(result)
    ours = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert re.findall(r"<(?:link|img|iframe|object|embed|base)\b|\bsrc=\"|\bhref=\"(?!#)|url\(|@import", ours) == []
    assert "default-src 'none'" in ours


def test_the_figures_on_the_page_are_json_without_gaps_filled(result: Result) -> None:
    page = report.html(result)
    found = re.search(r'<script id="figures" type="application/json">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    assert len(json.loads(found[1])) == page.count('class="chart"')


@pytest.mark.parametrize(
    ("value", "words"),
    [(0, "0"), (0.0000001, "<0.001"), (-0.0000001, ">-0.001"), (0.01234, "0.0123"), (1, "1.00"), (12345.6, "12,346")],
)
def test_a_small_number_is_not_rounded_to_nothing(value: float, words: str) -> None:
    assert number(value) == words


def test_a_change_too_small_to_write_has_no_sign_before_it(result: Result) -> None:
    pairs = zip(("vllm", "litport"), _nearly_equal(result), strict=True)
    earlier, later = (replace(result.rungs[4], name=name, time=time) for name, time in pairs)
    (_, table) = time_tables.times(replace(result, rungs=[earlier, later]))
    assert {row[3] for row in table.rows} == {"<0.001"}


def _nearly_equal(result: Result) -> list[TimeSummary]:
    """The time of a rung twice, the second one 0.1 us longer."""
    time = result.rungs[4].time
    assert time is not None
    row = time.rows[0]
    return [
        replace(time, rows=[replace(row, seconds=row.seconds + more_s)], e2e_s=time.e2e_s + more_s)
        for more_s in (0.0, 1e-7)
    ]


def test_the_page_has_contents_and_terms(result: Result) -> None:
    page = report.html(result)
    targets = re.findall(r'<li><a href="#([\w-]+)">', page)
    assert len(targets) == 7
    assert all(f'id="{target}"' in page for target in targets)
    assert "<dt>ttft</dt>" in page


def test_without_a_gpu_there_is_nothing_of_gpus(result: Result) -> None:
    assert "\n## GPUs" in report.markdown(result)
    rungs = [
        replace(rung, utilisation=[replace(window, gpus=[]) for window in rung.utilisation]) for rung in result.rungs
    ]
    without = replace(result, rungs=rungs, machine=replace(result.machine, gpus=[]))
    assert "\n## GPUs" not in report.markdown(without)
    assert "<h3>GPUs</h3>" not in report.html(without)


def test_what_ray_costs_and_what_further_machines_bought_is_told(result: Result) -> None:
    assert cluster(result) is None
    served = result.rungs[-1]
    assert served.name == "litport"
    rate = served.figures.request_throughput_per_s
    assert rate is not None

    def on_ray(name: str, machines: int, factor: float) -> RungSummary:
        figures = replace(served.figures, request_throughput_per_s=replace(rate, value=rate.value * factor))
        return replace(served, name=name, machines=machines, figures=replace(figures, output_throughput_per_s=None))

    rungs = [on_ray("ray[1]", 1, 0.97), on_ray("ray[4]", 2, 1.94), on_ray("ray-ingress", 1, 0.7)]
    assert cluster(replace(result, rungs=[served, *rungs])) == (
        "ray[1], on one machine: throughput 0.970 times that of litport (8 users). "
        "ray[4], on 2 machines: throughput 1.940 times that of litport, 2.000 times that of ray[1] on one (8 users). "
        "ray-ingress, on one machine: throughput 0.700 times that of litport (8 users)."
    )
    assert "2.000 times that of ray" in report.markdown(replace(result, rungs=[served, *rungs]))


def test_the_load_of_others_is_told(result: Result) -> None:
    assert others(result) is None
    loads = zip(result.rungs, (0.2, 1.5, 0.4, None, None, None, None, None), strict=False)
    busy = replace(result, rungs=[replace(rung, other_cores=cores) for rung, cores in loads])
    assert f"up to 1.50 cores ({result.rungs[1].name})" in str(others(busy))
    for text in (report.markdown(busy), report.html(busy)):
        assert "Others were at work on this machine" in text


def test_rows_of_two_engines_with_one_label_are_told_apart_by_their_owner(result: Result) -> None:
    parsing = RowSummary("decode", 0.001, "litserve.decode", "engine")
    generating = RowSummary("decode", 0.4, "vllm.decode", "model")
    rungs = []
    for rung, row in ((result.rungs[4], parsing), (result.rungs[6], generating)):
        assert rung.time is not None
        rungs.append(replace(rung, time=replace(rung.time, rows=[row])))
    (_, litport) = time_tables.times(replace(result, rungs=rungs))
    assert [row[:2] + row[3:] for row in litport.rows[:2]] == [
        ("decode (model)", "400.0", "+400.0"),
        ("decode (engine)", "-", "-1.00"),
    ]
    chart = time_charts.stacked(replace(result, rungs=rungs))
    assert chart is not None
    assert {entry.text for entry in chart.legend[:-1]} == {"decode (model)", "decode (engine)"}
