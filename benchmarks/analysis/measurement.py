"""What a rung gave: the measurements of its passes, the hardware beside them, and answers to compare."""

import math
from dataclasses import dataclass, field, replace

import msgspec

from benchmarks.analysis import stretches
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
    def counts_tokens(self) -> bool:
        """Whether the server, or the model, counts the tokens of its answers."""
        return any(record.output_tokens for record in self.records if not record.failed)

    def rate_per_s(self, in_tokens: bool) -> float:
        """Output tokens a second, or answers a second; failed requests do not count."""
        answers = [record for record in self.records if not record.failed]
        return (sum(record.output_tokens or 0 for record in answers) if in_tokens else len(answers)) / self.duration_s

    @property
    def throughput_per_s(self) -> float:
        """Output tokens a second where they are counted, else answers a second."""
        return self.rate_per_s(self.counts_tokens)

    @property
    def e2e_s(self) -> float:
        """The mean end-to-end latency, in seconds."""
        return sum(record.e2e_s for record in self.records) / len(self.records)


@dataclass
class RungResult:
    """What one rung gave at a number of users (an open load has none), in all passes: an entry of each list is a pass.

    `read_as` is how its answers are read; None for a bare model, which no load generator asks. `answers_error` says why
    there are no answers to compare although they were wanted. `machines` is on how many of a cluster it ran.
    """

    rung: str
    users: int | None
    start_s: list[float] = field(default_factory=list)
    measurements: list[Measurement] = field(default_factory=list)
    utilisation: list[Window] = field(default_factory=list)
    series: list[list[Sample]] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    answers_error: str | None = None
    batch_size: int | None = None
    machines: int | None = None
    read_as: ReadAs | None = None

    def with_passes_of(self, later: "RungResult") -> "RungResult":
        """This and the passes of a later result at the same users; the answers are those of the first."""
        return replace(
            self,
            start_s=[*self.start_s, *later.start_s],
            measurements=[*self.measurements, *later.measurements],
            utilisation=[*self.utilisation, *later.utilisation],
            series=[*self.series, *later.series],
        )

    @property
    def counts_tokens(self) -> bool:
        """Whether the server, or the model, counts the tokens of its answers."""
        return all(measurement.counts_tokens for measurement in self.measurements)

    def rate_per_s(self, in_tokens: bool) -> float:
        """Output tokens a second, or answers a second, over the time of all passes."""
        output = sum(measurement.rate_per_s(in_tokens) * measurement.duration_s for measurement in self.measurements)
        return output / sum(measurement.duration_s for measurement in self.measurements)

    @property
    def throughput_per_s(self) -> float:
        """Output tokens a second where they are counted, else answers a second; of this rung only."""
        return self.rate_per_s(self.counts_tokens)

    def ratio_to(self, base: "RungResult") -> float:
        """Throughput over another rung's: in output tokens where both count them, else in answers."""
        in_tokens = self.counts_tokens and base.counts_tokens
        return self.rate_per_s(in_tokens) / base.rate_per_s(in_tokens)

    @property
    def under_way(self) -> int:
        """How many requests the rung works on at a time: its batch, its users, or the most of any pass's mean."""
        if known := self.batch_size or self.users:
            return known
        return max(1, *(math.ceil(stretches.under_way(one.records, window(one.records))) for one in self.measurements))

    @property
    def e2e_s(self) -> float:
        """The mean end-to-end latency of the passes, in seconds."""
        return sum(measurement.e2e_s for measurement in self.measurements) / len(self.measurements)
