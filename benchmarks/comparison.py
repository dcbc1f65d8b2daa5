"""Two results against each other: ratios with bootstrap intervals, for people and for CI.

Results of other requests, another model or other arrivals are not compared.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks import result
from benchmarks.analysis import figures
from benchmarks.analysis.figures import Numbers
from benchmarks.result import Result
from clients.record import RequestRecord, window
from configs.errors import UserError

_Key = tuple[str, int]
"""A rung and its number of users."""

_EQUAL: Mapping[str, Callable[[Result], Any]] = {
    "model": lambda result: result.model,
    "workload_digest": lambda result: result.workload_digest,
    "settings.bench.load": lambda result: result.settings.bench.get("load"),
}


@dataclass(frozen=True)
class Ratio:
    """B's throughput over A's for one rung, with its 95 % interval."""

    rung: str
    users: int
    ratio: float
    low: float
    high: float


def compare(base: Path, candidate: Path) -> list[Ratio]:
    """The rungs that both results have. Raises UserError when the two cannot be compared."""
    folders = (base, candidate)
    try:
        results = [result.read(folder) for folder in folders]
    except ValueError as problem:
        raise UserError(str(problem)) from None
    for name, read in _EQUAL.items():
        first, second = map(read, results)
        if first != second:
            raise UserError(f"the two results cannot be compared: {name} is {_short(first)} and {_short(second)}")
    for folder, document in zip(folders, results, strict=True):
        if not document.valid:
            raise UserError(f"{folder} is not valid: {document.findings[0].message}")
    stretches = [_stretches(folder, document) for folder, document in zip(folders, results, strict=True)]
    common = [key for key in stretches[0] if key in stretches[1]]
    if not common:
        raise UserError("the two results have no rung in common")
    return [_ratio(key, stretches[0][key], stretches[1][key]) for key in common]


def _ratio(key: _Key, *stretches: tuple[Numbers, Numbers]) -> Ratio:
    draws = [figures.resampled_means(rates, lengths_s, seed) for seed, (rates, lengths_s) in enumerate(stretches)]
    low, high = np.percentile(draws[1] / draws[0], (2.5, 97.5))
    means = [np.average(rates, weights=lengths_s) for rates, lengths_s in stretches]
    return Ratio(*key, float(means[1] / means[0]), float(low), float(high))


def _stretches(folder: Path, document: Result) -> dict[_Key, tuple[Numbers, Numbers]]:
    """The rates of each rung in the stretches of its passes, and their lengths in seconds."""
    rates = {}
    for key, passes in _read_requests(folder, document).items():
        windows = [window(records) for records in passes]
        generates = any(record.output_tokens for records in passes for record in records)
        rates[key] = figures.stretch_rates(passes, windows, _tokens if generates else _answers)
    return rates


def _read_requests(folder: Path, document: Result) -> dict[_Key, list[list[RequestRecord]]]:
    passes: dict[_Key, dict[int, list[RequestRecord]]] = {}
    file = (folder if folder.is_dir() else folder.parent) / document.requests_file
    try:
        for line in file.read_bytes().splitlines():
            request = json.loads(line)
            key = (request["rung"], request["users"])
            record = msgspec.convert(request, RequestRecord)
            passes.setdefault(key, {}).setdefault(request["pass"], []).append(record)
    except (OSError, ValueError, KeyError) as problem:  # msgspec's errors are ValueErrors
        raise UserError(f"expected a result's requests in {file}: {problem}") from None
    return {key: list(by_number.values()) for key, by_number in passes.items()}


def _tokens(record: RequestRecord) -> float:
    return record.output_tokens or 0


def _answers(_: RequestRecord) -> float:
    return 1.0


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
