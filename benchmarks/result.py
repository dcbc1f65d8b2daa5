"""A result: all that a run measured, as one JSON document that says how it came about.

`result.json` has a versioned schema, which `schema` produces from the types here; `requests.jsonl` beside it has every
request. What was not measured is null. Findings against a result are a part of it.
"""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.analysis.measurement import RungResult
from benchmarks.analysis.summary import RungSummary
from benchmarks.analysis.validity import Finding
from benchmarks.analysis.verdict import Verdict
from benchmarks.environment import Environment, Machine

SCHEMA_VERSION = 1


class Settings(msgspec.Struct, frozen=True):
    """The settings of the model, as the recipe has them, and all settings of the benchmark."""

    model: dict[str, Any]
    bench: dict[str, Any]


class Confirmation(msgspec.Struct, frozen=True):
    """An advice that was tried: throughput and latency with it over those without it, in each pass and on average."""

    setting: str
    value: Any
    throughput_ratio: float
    throughput_ratios: list[float]
    e2e_ratio: float
    e2e_ratios: list[float]
    helped: bool


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The document `result.json`; times of day are UTC."""

    schema_version: int = SCHEMA_VERSION
    started_at: str
    finished_at: str
    command: list[str]
    model: str
    settings: Settings
    workload_digest: str
    versions: dict[str, str]
    machine: Machine
    git_commit: str | None
    requests_file: str = "requests.jsonl"
    valid: bool
    findings: list[Finding]
    rungs: list[RungSummary]
    verdict: Verdict | None
    confirmed: Confirmation | None


def conclude(
    *,
    command: Sequence[str],
    started_at: float,
    model: str,
    settings: Settings,
    workload_digest: str,
    environment: Environment,
    rungs: Sequence[RungSummary],
    findings: Sequence[Finding],
    verdict: Verdict | None = None,
    confirmed: Confirmation | None = None,
) -> Result:
    """The result of a run that began at `started_at` (Unix time) and ends now."""
    return Result(
        started_at=_utc(started_at),
        finished_at=_utc(time.time()),
        command=list(command),
        model=model,
        settings=settings,
        workload_digest=workload_digest,
        versions=environment.versions,
        machine=environment.machine,
        git_commit=environment.git_commit,
        valid=not findings,
        findings=list(findings),
        rungs=list(rungs),
        verdict=verdict,
        confirmed=confirmed,
    )


def schema() -> dict[str, Any]:
    """The JSON schema of `result.json`."""
    return msgspec.json.schema(Result)


def write(folder: Path, result: Result) -> None:
    """Write result.json."""
    text = json.dumps(msgspec.to_builtins(result), indent=1)
    (folder / "result.json").write_text(text + "\n", encoding="utf-8")


def write_requests(folder: Path, results: Sequence[RungResult]) -> None:
    """Write requests.jsonl: each record with its rung, users and pass, times counted from the start of the pass."""
    with (folder / "requests.jsonl").open("wb") as file:
        for result in results:
            for number, measurement in enumerate(result.measurements, start=1):
                begin_s = measurement.begin_s
                for record in measurement.records:
                    line = {"rung": result.rung, "users": result.users, "pass": number}
                    line |= _from_start(msgspec.to_builtins(record), begin_s)
                    file.write(json.dumps(line).encode() + b"\n")


def read(folder: Path) -> Result:
    """The result in a folder, or in a file. Raises ValueError when there is none of this schema."""
    file = folder / "result.json" if folder.is_dir() else folder
    try:
        document: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as problem:
        cause = problem.strerror if isinstance(problem, OSError) else problem
        raise ValueError(f"expected a result at {file}: {cause}") from None
    if document.get("schema_version") != SCHEMA_VERSION:
        raise ValueError(f"{file}: expected schema_version {SCHEMA_VERSION}, got {document.get('schema_version')}")
    try:
        return msgspec.convert(document, Result)
    except msgspec.ValidationError as problem:
        raise ValueError(f"expected a result at {file}: {problem}") from None


def _from_start(record: dict[str, Any], begin_s: float) -> dict[str, Any]:
    record["chunk_s"] = [round(at_s - begin_s, 6) for at_s in record["chunk_s"]]
    for name in ("scheduled_s", "sent_s", "end_s"):
        record[name] = round(record[name] - begin_s, 6)
    return record


def _utc(moment: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))
