"""Two results against each other: ratios with bootstrap intervals, for people and for CI.

It refuses to compare what was not asked the same: other requests, another model, other arrivals.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks import result
from benchmarks.analysis import figures
from clients.record import RequestRecord, window
from configs.errors import UserError

_SAME = ("model",), ("workload_digest",), ("settings", "bench", "load")


@dataclass(frozen=True)
class Ratio:
    """B's throughput over A's for one rung, with its 95 % interval."""

    rung: str
    users: int
    ratio: float
    low: float
    high: float


def compare(one: Path, other: Path) -> list[Ratio]:
    """The rungs that both results have. Raises UserError when the two cannot be compared."""
    try:
        results = [result.read(folder) for folder in (one, other)]
    except ValueError as problem:
        raise UserError(str(problem)) from None
    for path in _SAME:
        values = [_at(found, path) for found in results]
        if values[0] != values[1]:
            name = ".".join(path)
            raise UserError(
                f"the two results cannot be compared: {name} is {_short(values[0])} and {_short(values[1])}"
            )
    for folder, found in zip((one, other), results, strict=True):
        if not found["valid"]:
            raise UserError(f"{folder} is not valid: {found['findings'][0]['message']}")
    stretches = [_stretches(folder, found) for folder, found in zip((one, other), results, strict=True)]
    shared = [key for key in stretches[0] if key in stretches[1]]
    if not shared:
        raise UserError("the two results have no rung in common")
    return [_ratio(key, stretches[0][key], stretches[1][key]) for key in shared]


def _ratio(key: tuple[str, int], one: Any, other: Any) -> Ratio:
    draws = [figures.resampled_means(rates, lengths_s, seed) for seed, (rates, lengths_s) in enumerate((one, other))]
    low, high = np.percentile(draws[1] / draws[0], (2.5, 97.5))
    means = [np.average(rates, weights=lengths_s) for rates, lengths_s in (one, other)]
    return Ratio(*key, float(means[1] / means[0]), float(low), float(high))


def _stretches(folder: Path, found: Mapping[str, Any]) -> dict[tuple[str, int], Any]:
    passes: dict[tuple[str, int], dict[int, list[RequestRecord]]] = {}
    requests = (folder if folder.is_dir() else folder.parent) / found["requests_file"]
    try:
        for line in requests.read_bytes().splitlines():
            document = json.loads(line)
            key = (document["rung"], document["users"])
            record = msgspec.convert(document, RequestRecord)
            passes.setdefault(key, {}).setdefault(document["pass"], []).append(record)
    except (OSError, ValueError, KeyError) as problem:  # msgspec's errors are ValueErrors
        raise UserError(f"expected a result's requests in {requests}: {problem}") from None
    rates = {}
    for key, numbered in passes.items():
        each = list(numbered.values())
        windows = [window(one) for one in each]
        tokens = any(record.output_tokens for one in each for record in one)
        rates[key] = figures.stretch_rates(each, windows, _tokens if tokens else _one)
    return rates


def _tokens(record: RequestRecord) -> float:
    return record.output_tokens or 0


def _one(_: RequestRecord) -> float:
    return 1.0


def _at(found: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    value: Any = found
    for part in path:
        value = value[part]
    return value


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
