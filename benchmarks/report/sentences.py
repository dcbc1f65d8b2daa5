"""The sentences of a report: the verdict, the outcome of its advice, and what was run on which machine.

Markdown and the page share them. They repeat the result and add no judgement.
"""

import shlex

from benchmarks.report.cells import number
from benchmarks.report.tables.base import Table
from benchmarks.result import Result


def verdict(result: Result) -> str:
    """The verdict, its cause and its advice."""
    judgement = result.verdict
    if judgement is None:
        return "There is none: it needs Litport, or another server, measured with where its time goes."
    serving = f"Of serving alone, {judgement.serving_row} takes the most: {judgement.serving_share:.0%} of the latency."
    advice, reason = judgement.advice, judgement.reason or judgement.cause
    explanation = f" {_sentence(reason)}" if reason != judgement.cause else ""
    proposal = f"{explanation} Try {advice.setting}: {advice.value}." if advice else ""
    return f"{_sentence(judgement.summary)} {_sentence(judgement.cause)} {serving}{proposal}"


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
