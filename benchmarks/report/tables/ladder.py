"""The tables of the ladder: throughput, latencies, requests, the load generator, parity, efficiency."""

from collections.abc import Callable, Mapping

from benchmarks.analysis.parity import Parity
from benchmarks.analysis.summary import GeneratorSummary
from benchmarks.report.cells import (
    Cell,
    Column,
    folded,
    latency,
    mean,
    milliseconds,
    number,
    of,
    of_processes,
    percent,
    rate,
    whole,
)
from benchmarks.report.latency import LATENCIES, STATISTICS, Latency
from benchmarks.report.neighbours import ratio, throughput, throughput_unit
from benchmarks.report.tables.base import Table, of_rungs, of_subjects, subjects
from benchmarks.result import Result


def ladder(result: Result) -> Table:
    """Throughput of each rung, against the first."""
    unit = throughput_unit(result)
    columns: dict[str, Column] = {
        "requests/s (95 %)": rate(lambda rung: rung.figures.request_throughput_per_s),
        "output tokens/s (95 %)": rate(lambda rung: rung.figures.output_throughput_per_s),
        "x first": of(lambda rung: ratio(result, rung), "{:.3f}".format),
        "each pass": of(lambda rung: throughput(result, rung), lambda value: ", ".join(map(number, value.passes))),
        "e2e p50 ms": of(lambda rung: rung.figures.e2e_s.p50 if rung.figures.e2e_s else None, milliseconds),
        "cores used": of_processes(mean, lambda processes: processes.cpu_cores, number),
        "same answers": of(lambda rung: rung.parity.exact_share if rung.parity else None, "{:.0%}".format),
        "start s": lambda rung: folded(mean, rung.start_s, number),
    }
    note = (
        f"x first: {unit} over the first rung's with as many users. 95 %: Student's t over stretches of a pass. Each "
        f"pass: {unit}."
    )
    return of_rungs("The ladder", result.rungs, columns, note)


def latencies(result: Result) -> list[Table]:
    """Each latency of the rungs: mean and percentiles."""
    note = "A percentile is given only where at least five observations lie beyond it."
    return [_latency(kind, result, note) for kind in LATENCIES]


def requests(result: Result) -> Table:
    """The requests, how many failed, how many were good."""
    columns: dict[str, Column] = {
        "requests": of(lambda rung: rung.figures.requests, whole),
        "failed": of(lambda rung: rung.figures.failed, whole),
        "errors": of(lambda rung: rung.figures.errors, _errors),
        "goodput, requests/s (95 %)": rate(lambda rung: rung.figures.goodput_per_s),
        "prompt tokens": of(lambda rung: rung.figures.prompt_tokens, whole),
        "output tokens": of(lambda rung: rung.figures.output_tokens, whole),
        "prefix cache hits": of(lambda rung: rung.prefix_cache_hit_rate, percent),
        "measured s": of(lambda rung: rung.figures.duration_s, number),
    }
    return of_rungs("Requests, goodput, errors", result.rungs, columns)


def generator(result: Result) -> Table:
    """How far the load generator was from its own limits; rungs without one are left out."""
    columns: dict[str, Callable[[GeneratorSummary], Cell]] = {
        "offered requests/s": of(lambda load: load.offered_per_s, number),
        "achieved requests/s": of(lambda load: load.achieved_per_s, number),
        "its ceiling, requests/s": of(lambda load: load.ceiling_requests_per_s, number),
        "share of its ceiling": of(lambda load: load.share_of_ceiling, percent),
        "share of a core": of(lambda load: load.cpu_share, percent),
        "lag p99 ms": of(lambda load: load.lag_p99_s, milliseconds),
    }
    return of_subjects("Load generator", subjects(result.rungs, lambda rung: rung.generator), columns)


def parity(result: Result) -> Table:
    """Whether the rungs answer as the baseline does; rungs that were not compared are left out."""
    columns: dict[str, Callable[[Parity], Cell]] = {
        "same": of(lambda parity: parity.holds, lambda holds: "yes" if holds else "NO"),
        "prompts": of(lambda parity: parity.prompts, whole),
        "same answers": of(lambda parity: parity.exact_share, "{:.0%}".format),
        "first token that differs": lambda parity: "none" if parity.exact_share == 1 else _divergence(parity),
        "log-probability distance": of(lambda parity: parity.logprob_distance, number),
        "score distance": of(lambda parity: parity.score_distance, number),
        "least cosine": of(lambda parity: parity.least_cosine, "{:.6f}".format),
    }
    compared = subjects(result.rungs, lambda rung: rung.parity)
    return of_subjects("Parity with the baseline's answers", compared, columns)


def efficiency(result: Result) -> Table:
    """How well the hardware was used, and what it cost."""
    columns: dict[str, Column] = {
        "MFU": of(lambda rung: rung.efficiency.mfu, percent),
        "MBU": of(lambda rung: rung.efficiency.mbu, percent),
        "energy, J": of(lambda rung: rung.efficiency.energy_j, number),
        "output tokens/J": of(lambda rung: rung.efficiency.tokens_per_joule, number),
        "cost of a million output tokens": of(lambda rung: rung.efficiency.cost_per_million_output_tokens, number),
    }
    return of_rungs("MFU, MBU, energy, cost", result.rungs, columns)


def _latency(kind: Latency, result: Result, note: str) -> Table:
    measured = any(kind.read(rung.figures) for rung in result.rungs)
    columns: dict[str, Column] = {
        "n": of(lambda rung: kind.read(rung.figures), lambda distribution: whole(distribution.n)),
        **{f"{statistic}, ms (95 %)": latency(kind, statistic) for statistic in STATISTICS},
    }
    return of_rungs(kind.title, result.rungs, columns, note if measured else "")


def _divergence(parity: Parity) -> Cell:
    return None if parity.first_divergence is None else whole(parity.first_divergence)


def _errors(errors: Mapping[str, int]) -> str:
    return ", ".join(f"{kind}: {count}" for kind, count in errors.items()) or "none"
