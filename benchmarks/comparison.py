"""Two results against each other: ratios of throughput with their intervals, for people and for CI.

Results of other requests, another model or other arrivals are not compared. The interval says how much the ratio varied
within the two runs (`benchmarks.analysis.stretches`); it does not cover what differs between one day and another.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from benchmarks import result
from benchmarks.analysis import stretches
from benchmarks.analysis.stretches import Stretches
from benchmarks.report.neighbours import with_users
from benchmarks.result import Result
from clients.record import RequestRecord, window
from configs.errors import UserError

_Key = tuple[str, int | None]
"""A rung and its number of users; None for an open load."""

_Passes = Sequence[Sequence[RequestRecord]]

_EQUAL: Mapping[str, Callable[[Result], Any]] = {
    "model": lambda result: result.model,
    "workload_digest": lambda result: result.workload_digest,
    "settings.bench.load": lambda result: result.settings.bench.get("load"),
}

# A comparison should tell this difference of throughput from none.
_DIFFERENCE = 0.1


@dataclass(frozen=True)
class Ratio:
    """B's throughput over A's, in `unit` a second, with its 95 % interval.

    `rung` is A's, and `against` B's. `requests_needed` is how many requests a pass would take to tell 10 % from
    nothing; None where those measured do.
    """

    rung: str
    against: str
    users: int | None
    unit: str
    ratio: float
    low: float
    high: float
    requests_needed: int | None


def compare(base: Path, candidate: Path, pairs: Sequence[tuple[str, str]] = ()) -> list[Ratio]:
    """The ratios of the rungs of `pairs`, by default of those that both results have.

    Two results with one rung each are compared whatever its name. Raises UserError when the two, or a pair, cannot be
    compared.
    """
    first, second = _read(base, candidate)
    ratios = [
        _ratio((rung, against, users), passes, second[against, users])
        for rung, against in pairs or _matching([rung for rung, _ in first], [rung for rung, _ in second])
        for (name, users), passes in first.items()
        if name == rung and (against, users) in second
    ]
    sides = [", ".join(f"{rung} ({with_users(users)})" for rung, users in side) for side in (first, second)]
    compared = {(ratio.rung, ratio.against) for ratio in ratios}
    if missing := [" ".join(pair) for pair in pairs if pair not in compared]:
        message = f"--pair: expected a rung of A ({sides[0]}) and one of B ({sides[1]}) with as many users"
        raise UserError(f"{message}, got {', '.join(missing)}")
    if not ratios:
        message = f"the two results have no rung in common: {'; and '.join(sides)}"
        raise UserError(f"{message}; --pair RUNG RUNG names two to compare")
    return ratios


def _read(*folders: Path) -> list[dict[_Key, _Passes]]:
    """The requests of both results, by rung and users."""
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
    return [_read_requests(folder, document) for folder, document in zip(folders, results, strict=True)]


def _matching(first: Sequence[str], second: Sequence[str]) -> list[tuple[str, str]]:
    if len(set(first)) == len(set(second)) == 1:
        return [(first[0], second[0])]
    return [(rung, rung) for rung in dict.fromkeys(first) if rung in second]


def _ratio(key: tuple[str, str, int | None], base: _Passes, candidate: _Passes) -> Ratio:
    generates = all(record.output_tokens for passes in (base, candidate) for records in passes for record in records)
    weight = _tokens if generates else _answers
    rates = [
        sum(weight(record) for records in passes for record in records) / sum(map(_duration_s, passes))
        for passes in (base, candidate)
    ]
    cuts: tuple[list[Stretches], list[Stretches]] = ([], [])
    for records in zip(base, candidate, strict=False):
        windows = [window(side) for side in records]
        count = min(stretches.rounds(side, span) for side, span in zip(records, windows, strict=True))
        for side, span, stretches_of_side in zip(records, windows, cuts, strict=True):
            stretches_of_side.append(stretches.cut(side, span, weight, count))
    ratio = rates[1] / rates[0]
    error = stretches.ratio_error(*cuts)
    requests = max(len(records) for passes in (base, candidate) for records in passes)
    needed = math.ceil(requests * (error / _DIFFERENCE) ** 2) if error > _DIFFERENCE else None
    unit = "tokens" if generates else "requests"
    return Ratio(*key, unit, ratio, ratio * (1 - error), ratio * (1 + error), needed)


def _duration_s(records: Sequence[RequestRecord]) -> float:
    begin_s, end_s = window(records)
    return end_s - begin_s


def _read_requests(folder: Path, document: Result) -> dict[_Key, _Passes]:
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
