"""A result on the terminal: a table, the verdict, and a red banner where it does not count."""

from rich.console import Console
from rich.markup import escape  # of names such as model[onnxruntime]
from rich.panel import Panel
from rich.table import Table

from benchmarks.analysis.figures import Distribution, Rate, Statistic
from benchmarks.analysis.summary import RungSummary
from benchmarks.report.neighbours import ratio, users_of
from benchmarks.report.sentences import caveat, cluster, others
from benchmarks.result import Result

_COLUMNS = (
    "rung",
    "users",
    "req/s",
    "tokens/s",
    "x first",
    "ttft p50 ms",
    "tpot ms",
    "e2e p50 s",
    "cores",
    "cache hits",
    "parity",
)
_NOTHING = "-"
# The rungs whose time is shown, beside the last one and those on a cluster.
_WITH_TIME = ("litport", "vllm")


def show(result: Result, console: Console) -> None:
    """Print the whole result in short."""
    if not result.valid:
        console.print(banner(result))
    console.print(ladder_table(result))
    for rung in result.rungs:
        if (rung.time and (rung.name in _WITH_TIME or rung.machines)) or rung is result.rungs[-1]:
            console.print(time_table(rung))
    if note := others(result):
        console.print(f"\n[bold yellow]{escape(note)}[/]")
    if note := cluster(result):
        console.print(f"\n{escape(note)}")
    if verdict := result.verdict:
        console.print(f"\n{caveat(result)}[bold]{escape(verdict.summary)}.[/bold] {escape(verdict.cause)}.")
        if advice := verdict.advice:
            reason = "" if verdict.reason == verdict.cause else f"Also, {verdict.reason}. "
            console.print(
                f"{escape(reason)}Try {advice.setting}: {escape(str(advice.value))} (or --confirm, which tries it)."
            )
    if trial := result.confirmed:
        outcome = "helped" if trial.helped else "did not help"
        console.print(
            f"Tried {trial.setting}: {escape(str(trial.value))}, which {outcome}: throughput "
            f"{trial.throughput_ratio:.3f} times, latency {trial.e2e_ratio:.3f} times."
        )


def banner(result: Result) -> Panel:
    """The findings against the result."""
    lines = [f"{finding.rung}: {finding.message} ({finding.rule})" for finding in result.findings]
    return Panel(escape("\n".join(lines)), title="NOT VALID: do not quote these figures", style="bold red")


def ladder_table(result: Result) -> Table:
    """One row a rung: throughput with its interval, against the first of as many users, latencies, processors, parity.

    A column in which no rung has a figure is left out, so that the others have room.
    """
    rows = [_row(result, rung) for rung in result.rungs]
    table = Table(title=f"{escape(result.model)}: the ladder")
    shown = [index for index in range(len(_COLUMNS)) if not rows or any(row[index] != _NOTHING for row in rows)]
    for index in shown:
        is_name = _COLUMNS[index] == "rung"
        table.add_column(_COLUMNS[index], justify="left" if is_name else "right", overflow="fold", no_wrap=is_name)
    for row in rows:
        table.add_row(*(row[index] for index in shown))
    return table


def _row(result: Result, rung: RungSummary) -> tuple[str, ...]:
    """The texts of a rung for all columns."""
    figures = rung.figures
    against_first = ratio(result, rung)
    median_s = figures.e2e_s.p50 if figures.e2e_s else None
    return (
        escape(rung.name) + (f" ({rung.batch_size})" if rung.batch_size else ""),
        users_of(rung),
        with_interval(figures.request_throughput_per_s),
        with_interval(figures.output_throughput_per_s),
        _NOTHING if against_first is None else f"{against_first:.2f}",
        milliseconds(figures.ttft_s, "p50"),
        milliseconds(figures.tpot_s, "mean"),
        _NOTHING if median_s is None else f"{median_s:.3f}",
        cores(rung),
        percent(rung.prefix_cache_hit_rate),
        parity(rung),
    )


def time_table(rung: RungSummary) -> Table:
    """Where the time of a rung goes."""
    table = Table(title=f"{escape(rung.name)}: where the time goes")
    for title in ("row", "ms a request", "share"):
        table.add_column(title, justify="left" if title == "row" else "right")
    if time := rung.time:
        for row in time.rows:
            table.add_row(row.name, f"{row.seconds * 1000:.2f}", f"{row.seconds / time.e2e_s:.1%}")
        closure = f"not closed: {time.note}" if time.closure_error is None else f"{time.closure_error:+.2%}"
        table.add_row("measured end to end", f"{time.e2e_s * 1000:.2f}", f"closure {closure}", style="bold")
    return table


def with_interval(rate: Rate | None) -> str:
    """A rate and half the width of its interval."""
    return _NOTHING if rate is None else f"{rate.value:.1f} ±{(rate.ci[1] - rate.ci[0]) / 2:.1f}"


def milliseconds(distribution: Distribution | None, statistic: Statistic) -> str:
    """One figure of a distribution."""
    value = distribution.value(statistic) if distribution else None
    return _NOTHING if value is None else f"{value * 1000:.1f}"


def percent(share: float | None) -> str:
    """A share as text."""
    return _NOTHING if share is None else f"{share:.0%}"


def cores(rung: RungSummary) -> str:
    """Cores that the rung's processes used, the mean of the passes that were long enough to be sampled."""
    trees = [window.rung for window in rung.utilisation if window.samples and window.rung]
    values = [processes.cpu_cores for processes in trees if processes.cpu_cores is not None]
    return f"{sum(values) / len(values):.2f}" if values else _NOTHING


def parity(rung: RungSummary) -> str:
    """The share of answers that are the baseline's."""
    comparison = rung.parity
    return _NOTHING if comparison is None else f"{comparison.exact_share:.0%}" + ("" if comparison.holds else " !")
