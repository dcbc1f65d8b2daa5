"""The sentences of a report: the verdict, the outcome of its advice, and what was run on which machine.

Markdown and the page share them. They repeat the result and add no judgement.
"""

import shlex
from collections.abc import Sequence

from benchmarks.analysis.summary import RungSummary
from benchmarks.report.cells import number
from benchmarks.report.neighbours import over, same_users, with_users
from benchmarks.report.tables.base import Table
from benchmarks.result import Result

OTHER_CORES = 0.25
"""What others may use, the system itself among them."""

TERMS: Sequence[tuple[str, str]] = (
    ("rung", "One way to run the model, from the bare model to Litport; each adds a layer to the one before."),
    ("pass", "One climb of all rungs; every second one goes from the top down."),
    ("users", "Requests under way at a time; an open load has none, as its requests do not wait for answers."),
    ("ttft", "Time to first token: from when a request was due until the first part of its answer."),
    ("tpot", "Time per output token after the first, averaged over an answer."),
    ("itl", "Inter-token latency: the time between two parts of a streamed answer."),
    ("e2e", "End-to-end latency: from when a request was due until its whole answer."),
    ("p50, p90", "Half, or nine tenths, of the requests took at most this long."),
    ("95 % interval", "Where the true figure lies in 95 of 100 such runs, by the noise within this one."),
    ("goodput", "Answers a second that kept all limits of bench.slo."),
    ("parity", "Whether a rung answers as the first one does, to the same prompts."),
    ("closure error", "By how much the parts of a request's time miss its measured whole."),
    ("cores used", "Processor time of the rung's processes a second; others have theirs beside it."),
    ("knee", "The number of users from which more of them add latency and hardly any throughput."),
)


def verdict(result: Result) -> str:
    """The verdict, its cause and its advice."""
    judgement = result.verdict
    if judgement is None:
        return "There is none: it needs Litport, or another server, measured with where its time goes."
    serving = f"Of serving alone, {judgement.serving_row} takes the most: {judgement.serving_share:.0%} of the latency."
    advice, reason = judgement.advice, judgement.reason or judgement.cause
    explanation = f" {_sentence(reason)}" if reason != judgement.cause else ""
    proposal = f"{explanation} Try {advice.setting}: {advice.value}." if advice else ""
    return f"{caveat(result)}{_sentence(judgement.summary)} {_sentence(judgement.cause)} {serving}{proposal}"


def caveat(result: Result) -> str:
    """What stands before the verdict on figures that do not count."""
    return "" if result.valid else "Of figures that are not valid, so no more than a hint: "


def confirmed(result: Result) -> str | None:
    """The outcome of the advice; None where it was not tried."""
    trial = result.confirmed
    if trial is None:
        return None
    pairs = [
        f"{name} {ratio:.3f} times ({', '.join(f'{of_pass:.3f}' for of_pass in ratios)})"
        for name, ratio, ratios in (
            ("throughput", trial.throughput_ratio, trial.throughput_ratios),
            ("end-to-end latency", trial.e2e_ratio, trial.e2e_ratios),
        )
    ]
    outcome = "helped" if trial.helped else "did not help"
    return f"{trial.setting}: {trial.value} was tried and {outcome}: {', '.join(pairs)}, each pass in brackets."


def others(result: Result) -> str | None:
    """What the load of others on the machine may have done to the figures; None where there was little of it."""
    loads = {rung.name: rung.other_cores for rung in result.rungs if (rung.other_cores or 0) > OTHER_CORES}
    if not loads:
        return None
    name = max(loads, key=lambda rung: loads[rung] or 0)
    return (
        f"Others were at work on this machine: up to {number(loads[name] or 0)} cores ({name}) beside the rung and its "
        "load. The figures may be too low, and differ between the rungs; measure again when it is quiet."
    )


def cluster(result: Result) -> str | None:
    """What Ray costs and what further machines bought; None where no rung was on a cluster."""
    sentences = []
    for rung in (rung for rung in result.rungs if rung.machines):
        peers = {peer.name: peer for peer in same_users(result, rung)}
        one = next((peer for peer in peers.values() if _kind(peer) == _kind(rung) and peer.machines == 1), None)
        bases = [base for base in (peers.get("litport"), one) if base not in (None, rung)]
        ratios = [
            f"{ratio:.3f} times that of {base.name}{' on one' if base.machines else ''}"
            for base in bases
            if base and (ratio := over(result, rung, base)) is not None
        ]
        if ratios:
            machines = "one machine" if rung.machines == 1 else f"{rung.machines} machines"
            sentences.append(f"{rung.name}, on {machines}: throughput {', '.join(ratios)} ({with_users(rung.users)}).")
    return " ".join(sentences) or None


def _kind(rung: RungSummary) -> str:
    return rung.name.partition("[")[0]


def about(result: Result) -> Table:
    """When, what, where, and with which versions."""
    machine = result.machine
    gpus = [f"{gpu.name}, {gpu.memory_mib:,} MiB, driver {gpu.driver}" for gpu in machine.gpus]
    rows: list[tuple[str, str | None]] = [
        ("model", result.model),
        ("started", result.started_at),
        ("finished", result.finished_at),
        ("command", shlex.join(result.command)),
        ("git commit", result.git_commit),
        ("system", machine.system),
        ("processor", machine.processor),
        ("cores", str(machine.cores)),
        ("memory", None if machine.memory_bytes is None else f"{number(machine.memory_bytes / 2**30)} GiB"),
        ("GPUs", "; ".join(gpus) or "none found"),
        ("requests digest (SHA-256)", result.workload_digest),
        ("every request", result.requests_file),
        *((f"version of {package}", version) for package, version in result.versions.items()),
    ]
    cells = tuple((name, value or "not known") for name, value in rows)
    return Table("The run", ("what", "value"), cells, numeric=False)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".") + "."
