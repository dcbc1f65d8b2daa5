"""The tables of a report: what a result holds, as rows of words, the same in Markdown and on the page.

They stand apart from both, so that the two cannot say different things. A cell is None where nothing was measured, and
a column of nothing but such cells becomes a name in `absent`. No table ever fills a gap with a number.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.report.cells import (
    Cell,
    Column,
    folded,
    latency,
    mean,
    milliseconds,
    number,
    of,
    over_passes,
    percent,
    rate,
    whole,
)
from benchmarks.report.neighbours import Result, Rung, before, called, changes, ratio, throughput_unit, with_users

LATENCIES = {
    "ttft_s": "Time to first token, or first part of the answer (ttft)",
    "tpot_s": "Time per output token after the first (tpot)",
    "itl_s": "Time between parts of an answer (itl)",
    "e2e_s": "End-to-end latency (e2e)",
}
_WHO = ("rung", "users")
_TOTAL = "measured end to end"
_NONE = "-"


@dataclass(frozen=True)
class Table:
    """`rows` are as long as `header`; each begins with what it is about. `absent` names columns without any value.
    Where `numeric`, all columns but the first are to be read as numbers."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    absent: tuple[str, ...] = ()
    note: str = ""
    numeric: bool = True

    @property
    def empty(self) -> bool:
        """Whether there is nothing to show but for whom."""
        return not self.rows or (bool(self.absent) and self.header == _WHO)

    @property
    def gap(self) -> str:
        """What is missing, in words."""
        if self.empty:
            return "Not measured."
        return f"Not measured: {'; '.join(self.absent)}." if self.absent else ""


def of_rungs(title: str, rungs: Sequence[Rung], columns: Mapping[str, Column], note: str = "") -> Table:
    """A row a rung: its name, its users, and the columns in which any of them has a value."""
    cells = {name: [column(rung) for rung in rungs] for name, column in columns.items()}
    shown = [name for name, values in cells.items() if any(value is not None for value in values)]
    rows = [
        (
            called(rung),
            f"{rung['users']}{' (knee)' if rung.get('knee') else ''}",
            *(cells[name][number] for name in shown),
        )
        for number, rung in enumerate(rungs)
    ]
    absent = tuple(name for name in cells if name not in shown)
    return Table(title, (*_WHO, *shown), tuple(rows), absent, note)


def ladder(result: Result) -> Table:
    """Throughput of each rung, against the first."""
    key, unit = throughput_unit(result)
    columns: dict[str, Column] = {
        "requests/s (95 %)": rate("figures", "request_throughput_per_s"),
        "output tokens/s (95 %)": rate("figures", "output_throughput_per_s"),
        "x first": lambda rung: folded(mean, [ratio(result, rung)], "{:.3f}".format),
        "each pass": of("figures", key, "passes", form=lambda passes: ", ".join(map(number, passes))),
        "e2e p50 ms": of("figures", "e2e_s", "p50", form=milliseconds),
        "cores used": over_passes(mean, "models", "model", "cpu_cores"),
        "same answers": of("parity", "exact_share", form="{:.0%}".format),
        "start s": lambda rung: folded(mean, rung["start_s"]),
    }
    note = f"x first: {unit} over the first rung's with as many users. 95 %: bootstrap interval. Each pass: {unit}."
    return of_rungs("The ladder", result["rungs"], columns, note)


def latencies(result: Result) -> list[Table]:
    """Each latency of the rungs: mean and percentiles."""
    note = "A percentile is given only where at least five observations lie beyond it."
    return [
        of_rungs(
            title,
            result["rungs"],
            {
                "n": of("figures", key, "n", form=whole),
                **{f"{which}, ms (95 %)": latency(key, which) for which in ("mean", "p50", "p90", "p99")},
            },
            note if any(rung["figures"][key] for rung in result["rungs"]) else "",
        )
        for key, title in LATENCIES.items()
    ]


def times(result: Result) -> list[Table]:
    """Where the time of each rung goes, and what each row gained over the rung before."""
    return [_time(rung, before(result, rung)) for rung in result["rungs"] if rung["time"]]


def requests(result: Result) -> Table:
    """What was asked, what failed, what was good."""
    columns: dict[str, Column] = {
        "requests": of("figures", "requests", form=whole),
        "failed": of("figures", "failed", form=whole),
        "errors": of("figures", "errors", form=_errors),
        "goodput, requests/s (95 %)": rate("figures", "goodput_per_s"),
        "prompt tokens": of("figures", "prompt_tokens", form=whole),
        "output tokens": of("figures", "output_tokens", form=whole),
        "prefix cache hits": of("prefix_cache_hit_rate", form=percent),
        "measured s": of("figures", "duration_s"),
    }
    return of_rungs("Requests, goodput, errors", result["rungs"], columns)


def generator(result: Result) -> Table:
    """How far the load generator was from its own limits; rungs without one are left out."""
    columns: dict[str, Column] = {
        "offered requests/s": of("generator", "offered_per_s"),
        "achieved requests/s": of("generator", "achieved_per_s"),
        "its ceiling, requests/s": of("generator", "ceiling_requests_per_s"),
        "share of its ceiling": of("generator", "share_of_ceiling", form=percent),
        "share of a core": of("generator", "cpu_share", form=percent),
        "lag p99 ms": of("generator", "lag_p99_s", form=milliseconds),
    }
    return of_rungs("Load generator", [rung for rung in result["rungs"] if rung["generator"]], columns)


def parity(result: Result) -> Table:
    """Whether the rungs answer as the baseline does; rungs that were not compared are left out."""
    columns: dict[str, Column] = {
        "same": of("parity", "holds", form=lambda holds: "yes" if holds else "NO"),
        "prompts": of("parity", "prompts", form=whole),
        "same answers": of("parity", "exact_share", form="{:.0%}".format),
        "first token that differs": _divergence,
        "log-probability distance": of("parity", "logprob_distance", form=number),
        "least cosine": of("parity", "least_cosine", form="{:.6f}".format),
    }
    return of_rungs("Parity with the baseline's answers", [rung for rung in result["rungs"] if rung["parity"]], columns)


def efficiency(result: Result) -> Table:
    """How well the hardware was used, and what it cost."""
    columns: dict[str, Column] = {
        "MFU": of("efficiency", "mfu", form=percent),
        "MBU": of("efficiency", "mbu", form=percent),
        "energy, J": of("efficiency", "energy_j"),
        "output tokens/J": of("efficiency", "tokens_per_joule"),
        "cost of a million output tokens": of("efficiency", "cost_per_million_output_tokens"),
    }
    return of_rungs("MFU, MBU, energy, cost", result["rungs"], columns)


def _divergence(rung: Rung) -> str | None:
    return "none" if rung["parity"]["holds"] else of("parity", "first_divergence", form=whole)(rung)


def _time(rung: Rung, earlier: Rung | None) -> Table:
    spent = rung["time"]
    own = {row["name"]: row["seconds"] for row in spent["rows"]} | {_TOTAL: spent["e2e_s"]}
    gained: dict[str, float] = {}
    if earlier:
        gained = changes(earlier, rung) | {_TOTAL: spent["e2e_s"] - earlier["time"]["e2e_s"]}
    rows = [
        (
            name,
            milliseconds(own[name]) if name in own else _NONE,
            percent(own[name] / spent["e2e_s"]) if name in own and spent["e2e_s"] else _NONE,
            *((_signed(gained[name]),) if earlier else ()),
        )
        for name in sorted({**own, **gained}, key=lambda name: name == _TOTAL)
    ]
    error = spent["closure_error"]
    closure = "Closure error not measured" if error is None else f"Closure error {error:+.2%}"
    note = f"{closure}: {spent['note']}." if spent["note"] else f"{closure}."
    if earlier:
        note += f" Change: from {called(earlier)}."
    if any(_NONE in row for row in rows):
        note += f" Rows marked {_NONE} are only in that one."
    header = ("row", "ms a request", "share", *(("change, ms",) if earlier else ()))
    return Table(f"{called(rung)}, {with_users(rung['users'])}", header, tuple(rows), note=note)


def _signed(seconds: float) -> str:
    words = milliseconds(seconds)
    return f"+{words}" if seconds > 0 else words


def _errors(errors: Mapping[str, int]) -> str:
    return ", ".join(f"{kind}: {count}" for kind, count in errors.items()) or "none"
