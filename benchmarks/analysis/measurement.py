"""What a rung gave: the measurements of its passes, the hardware beside them, and answers to compare."""

from dataclasses import dataclass, field

import msgspec

from benchmarks.analysis.breakdown import Breakdown
from benchmarks.analysis.hardware import Sample, Window
from benchmarks.load.generator import Cost
from benchmarks.load.request import ReadAs
from clients.record import RequestRecord, window


class Answer(msgspec.Struct, frozen=True):
    """One greedy answer: generated tokens with their log-probabilities, vectors, or labels with their scores.

    None for what it is not.
    """

    token_ids: list[int] | None = None
    logprobs: list[float] | None = None
    vectors: list[list[float]] | None = None
    labels: list[str] | None = None
    scores: list[float] | None = None


@dataclass(frozen=True)
class Measurement:
    """One measurement of one rung. `costs` are those of the load's generators; a bare model has none.

    `hit_rate` is the share of prompt tokens that the prefix cache answered; None where the server does not say.
    """

    records: tuple[RequestRecord, ...]
    time: Breakdown | None
    costs: tuple[Cost, ...] = ()
    hit_rate: float | None = None

    @property
    def begin_s(self) -> float:
        """When the first request was due (`time.monotonic()`)."""
        return window(self.records)[0]

    @property
    def end_s(self) -> float:
        """When the last answer was complete."""
        return window(self.records)[1]

    @property
    def duration_s(self) -> float:
        """The time from the first request that was due to the last answer."""
        begin_s, end_s = window(self.records)
        return end_s - begin_s

    @property
    def throughput_per_s(self) -> float:
        """Output tokens a second, or answers a second where nothing is generated; failed requests do not count."""
        output = sum(record.output_tokens or 1 for record in self.records if not record.failed)
        return output / self.duration_s

    @property
    def e2e_s(self) -> float:
        """The mean end-to-end latency, in seconds."""
        return sum(record.e2e_s for record in self.records) / len(self.records)


@dataclass
class RungResult:
    """What one rung gave at a number of users, in all passes: an entry of each list is a pass.

    `read_as` is how its answers are read; None for a bare model, which no load generator asks. `answers_error` says why
    there are no answers to compare although they were wanted.
    """

    rung: str
    users: int
    start_s: list[float] = field(default_factory=list)
    measurements: list[Measurement] = field(default_factory=list)
    utilisation: list[Window] = field(default_factory=list)
    series: list[list[Sample]] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    answers_error: str | None = None
    batch_size: int | None = None
    read_as: ReadAs | None = None

    @property
    def throughput_per_s(self) -> float:
        """The throughput over the time of all passes."""
        output = sum(measurement.throughput_per_s * measurement.duration_s for measurement in self.measurements)
        return output / sum(measurement.duration_s for measurement in self.measurements)

    @property
    def e2e_s(self) -> float:
        """The mean end-to-end latency of the passes, in seconds."""
        return sum(measurement.e2e_s for measurement in self.measurements) / len(self.measurements)
