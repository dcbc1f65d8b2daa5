"""What the process of a bare model gives back: records with the time of each step, and answers to compare."""

import msgspec

from benchmarks.analysis.measurement import Answer
from clients.record import RequestRecord


class Outcome(msgspec.Struct, frozen=True):
    """`steps` are seconds of all requests together, by name; `series` is what vLLM's own series gained."""

    records: list[RequestRecord] = []
    steps: list[tuple[str, float]] = []
    series: dict[str, float] = {}
    answers: list[Answer] = []
