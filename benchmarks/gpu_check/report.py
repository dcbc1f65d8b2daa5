"""The outcome of a GPU check, as one JSON document and as a Markdown table for docs/benchmarks.md."""

import time
from collections.abc import Sequence

import msgspec

from benchmarks.environment import Environment
from benchmarks.gpu_check.check import Check, Outcome

SCHEMA_VERSION = 1


class PartReport(msgspec.Struct, frozen=True):
    """One part. `reason` says why it was not run, or how it broke off."""

    name: str
    outcome: Outcome
    took_s: float
    limit_s: float
    reason: str
    checks: list[Check]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All parts, and the machine; `card` is None where no driver answered. `rehearsal`: models ran on the processor."""

    schema_version: int = SCHEMA_VERSION
    started_at: str
    took_s: float
    rehearsal: bool
    card: str | None
    driver: str | None
    environment: Environment
    parts: list[PartReport]

    @property
    def failed(self) -> bool:
        """Whether anything was otherwise than expected; what was not run is no failure."""
        return any(part.outcome == "failed" for part in self.parts)


def conclude(started_at_s: float, parts: Sequence[PartReport], rehearsal: bool) -> Report:
    """The report of parts that were run one after the other, from `started_at_s` (Unix time) until now."""
    environment = Environment.detect()
    gpu = next(iter(environment.machine.gpus), None)
    return Report(
        started_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started_at_s)),
        took_s=round(time.time() - started_at_s, 1),
        rehearsal=rehearsal,
        card=gpu.name if gpu else None,
        driver=gpu.driver if gpu else None,
        environment=environment,
        parts=list(parts),
    )


def json_text(report: Report) -> str:
    """The report as JSON."""
    return msgspec.json.format(msgspec.json.encode(report), indent=1).decode() + "\n"


def markdown(report: Report) -> str:
    """The report as Markdown: what it ran on, a row for each part, and a row for each check."""
    machine, versions = report.environment.machine, report.environment.versions
    packages = ", ".join(
        f"{name} {versions[name]}" for name in ("python", "torch", "litserve", "vllm") if name in versions
    )
    card = f"{report.card}, driver {report.driver}" if report.card else "no GPU"
    lines = [
        f"{card}; {machine.cores} cores; {packages}; {report.started_at}; {report.took_s:g} s."
        + (" A rehearsal: the models ran on the processor." if report.rehearsal else ""),
        "",
        "| part | outcome | took | |",
        "|---|---|---|---|",
        *(f"| {part.name} | {part.outcome} | {part.took_s:g} s | {part.reason} |" for part in report.parts),
    ]
    for part in (part for part in report.parts if part.checks):
        lines += ["", f"| {part.name} | outcome | measured | expected |", "|---|---|---|---|"]
        lines += [_row(check) for check in part.checks]
    return "\n".join(lines) + "\n"


def _row(check: Check) -> str:
    value = check.reason if check.value is None else check.value
    return f"| {check.name} | {check.outcome} | {value} | {check.expected} |"
