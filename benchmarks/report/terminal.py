"""A result on the terminal: a table, the verdict, and a red banner where it does not count."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.table import Table


def show(result: Mapping[str, Any], console: Console) -> None:
    """Print the whole result in short."""
    if not result["valid"]:
        console.print(banner(result))
    console.print(ladder_table(result))
    for rung in result["rungs"]:
        if (rung["time"] and rung["name"] in ("litport", "vllm")) or rung is result["rungs"][-1]:
            console.print(time_table(rung))
    if verdict := result["verdict"]:
        console.print(f"\n[bold]{verdict['summary']}.[/bold] {verdict['cause']}.")
        if advice := verdict["advice"]:
            why = "" if verdict["reason"] == verdict["cause"] else f"Also, {verdict['reason']}. "
            console.print(f"{why}Try {advice['setting']}: {advice['value']} (or --confirm, which tries it).")
    if confirmed := result["confirmed"]:
        words = "helped" if confirmed["helped"] else "did not help"
        console.print(
            f"Tried {confirmed['setting']}: {confirmed['value']}, which {words}: throughput "
            f"{confirmed['throughput_ratio']:.3f} times, latency {confirmed['e2e_ratio']:.3f} times."
        )


def banner(result: Mapping[str, Any]) -> Panel:
    """What is wrong with the result."""
    lines = [f"{found['rung']}: {found['message']} ({found['rule']})" for found in result["findings"]]
    return Panel("\n".join(lines), title="NOT VALID: do not quote these figures", style="bold red")


def ladder_table(result: Mapping[str, Any]) -> Table:
    """One row a rung: throughput with its interval, against the first, latencies, processors, parity."""
    table = Table(title=f"{result['model']}: the ladder")
    for title in (
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
    ):
        table.add_column(title, justify="left" if title == "rung" else "right")
    first = throughput(result["rungs"][0]) if result["rungs"] else None
    for rung in result["rungs"]:
        figures = rung["figures"]
        own = throughput(rung)
        table.add_row(
            rung["name"] + (f" ({rung['batch_size']})" if rung["batch_size"] else ""),
            f"{rung['users']}{' (knee)' if rung['knee'] else ''}",
            with_interval(figures["request_throughput_per_s"]),
            with_interval(figures["output_throughput_per_s"]),
            f"{own / first:.2f}" if own and first else "-",
            milliseconds(figures["ttft_s"], "p50"),
            milliseconds(figures["tpot_s"], "mean"),
            f"{figures['e2e_s']['p50']:.3f}" if figures["e2e_s"] and figures["e2e_s"]["p50"] is not None else "-",
            cores(rung),
            percent(rung["prefix_cache_hit_rate"]),
            parity(rung),
        )
    return table


def time_table(rung: Mapping[str, Any]) -> Table:
    """Where the time of a rung goes."""
    time = rung["time"]
    table = Table(title=f"{rung['name']}: where the time goes")
    for title in ("row", "ms a request", "share"):
        table.add_column(title, justify="left" if title == "row" else "right")
    for row in time["rows"] if time else ():
        table.add_row(row["name"], f"{row['seconds'] * 1000:.2f}", f"{row['seconds'] / time['e2e_s']:.1%}")
    if time:
        closed = "not closed: " + time["note"] if time["closure_error"] is None else f"{time['closure_error']:+.2%}"
        table.add_row("measured end to end", f"{time['e2e_s'] * 1000:.2f}", f"closure {closed}", style="bold")
    return table


def throughput(rung: Mapping[str, Any]) -> float | None:
    """Output tokens a second, or requests a second where nothing is generated."""
    figures = rung["figures"]
    rate = figures["output_throughput_per_s"] or figures["request_throughput_per_s"]
    return float(rate["value"]) if rate else None


def with_interval(rate: Mapping[str, Any] | None) -> str:
    """A rate and half the width of its interval."""
    if rate is None:
        return "-"
    return f"{rate['value']:.1f} ±{(rate['ci'][1] - rate['ci'][0]) / 2:.1f}"


def milliseconds(distribution: Mapping[str, Any] | None, which: str) -> str:
    """One figure of a distribution."""
    value = distribution[which] if distribution else None
    return "-" if value is None else f"{value * 1000:.1f}"


def percent(share: float | None) -> str:
    """A share in words."""
    return "-" if share is None else f"{share:.0%}"


def cores(rung: Mapping[str, Any]) -> str:
    """Cores that the rung's processes used, the mean of the passes that were long enough to be sampled."""
    sampled = [window for window in rung["utilisation"] if window["samples"]]
    used = [window["models"].get("model", {}).get("cpu_cores") for window in sampled]
    known = [value for value in used if value is not None]
    return f"{sum(known) / len(known):.2f}" if known else "-"


def parity(rung: Mapping[str, Any]) -> str:
    """The share of answers that are the baseline's."""
    compared = rung["parity"]
    return "-" if compared is None else f"{compared['exact_share']:.0%}" + ("" if compared["holds"] else " !")
