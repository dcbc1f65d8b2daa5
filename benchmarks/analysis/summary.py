"""One rung of a result: its figures, where its time goes, its parity, in the form of `result.json`.

A row carries its label as `name`, its layer's key and the layer's owner. Results from before layers had keys have only
the name.
"""

import os
from collections.abc import Sequence

import msgspec

from benchmarks.analysis import figures, parity
from benchmarks.analysis.efficiency import Efficiency
from benchmarks.analysis.figures import Figures
from benchmarks.analysis.hardware import Sample, Window
from benchmarks.analysis.measurement import Measurement, RungResult
from benchmarks.analysis.parity import Parity
from configs.bench import Bench


class RowSummary(msgspec.Struct, frozen=True):
    """A row of the breakdown: the mean over all passes, in seconds a request."""

    name: str
    seconds: float
    layer: str | None = None
    owner: str | None = None

    @property
    def key(self) -> str:
        """What tells it from other rows."""
        return self.layer or self.name


class TimeSummary(msgspec.Struct, frozen=True):
    """Where the time of a rung goes; the closure error is the largest of all passes."""

    rows: list[RowSummary]
    e2e_s: float
    closure_error: float | None
    note: str


class GeneratorSummary(msgspec.Struct, frozen=True):
    """How far the load generator was from its own limits."""

    ceiling_requests_per_s: float
    share_of_ceiling: float
    cpu_share: float
    lag_p99_s: float
    offered_per_s: float | None
    achieved_per_s: float


class RungSummary(msgspec.Struct, frozen=True):
    """A rung at a number of users; null for an open load. `knee` marks the number of users at which a ramp bends.

    `other_cores` is what neither the rung nor the load generator used of the processors, the most in any pass; null
    where one of the three was not measured. `machines` is on how many of a Ray cluster it ran; null for other rungs.
    """

    name: str
    users: int | None
    batch_size: int | None
    start_s: list[float]
    figures: Figures
    time: TimeSummary | None
    prefix_cache_hit_rate: float | None
    generator: GeneratorSummary | None
    utilisation: list[Window]
    efficiency: Efficiency
    series: list[list[Sample]]
    parity: Parity | None
    knee: bool = False
    other_cores: float | None = None
    machines: int | None = None


def summarise(
    result: RungResult,
    bench: Bench,
    baseline: RungResult | None,
    generator: GeneratorSummary | None,
    efficiency: Efficiency,
    knee: bool,
) -> RungSummary:
    """The summary of a rung; its answers are compared with those of the `baseline`, if there is one."""
    passes = [measurement.records for measurement in result.measurements]
    windows = [(measurement.begin_s, measurement.end_s) for measurement in result.measurements]
    comparable = baseline and baseline.answers and result.answers
    return RungSummary(
        name=result.rung,
        users=result.users,
        batch_size=result.batch_size,
        start_s=result.start_s,
        figures=figures.summarise(passes, windows, bench.slo),
        time=summarise_time(result.measurements),
        prefix_cache_hit_rate=_mean([measurement.hit_rate for measurement in result.measurements]),
        generator=generator,
        utilisation=result.utilisation,
        efficiency=efficiency,
        series=result.series,
        parity=parity.compare(baseline.answers, result.answers, bench.validity) if baseline and comparable else None,
        knee=knee,
        other_cores=other_cores(result),
        machines=result.machines,
    )


def other_cores(result: RungResult) -> float | None:
    """The cores that others used, the most in any pass."""
    loads = []
    for measurement, window in zip(result.measurements, result.utilisation, strict=True):
        percent, rung = window.host.cpu_percent, window.rung
        if percent is None or rung is None or rung.cpu_cores is None:
            return None
        generators = sum(cost.cpu_s / cost.wall_s for cost in measurement.costs)
        loads.append(max(0.0, percent / 100 * (os.cpu_count() or 1) - rung.cpu_cores - generators))
    return max(loads, default=None)


def summarise_time(measurements: Sequence[Measurement]) -> TimeSummary | None:
    """The rows of all passes, averaged by layer; None where no pass was broken down."""
    times = [measurement.time for measurement in measurements if measurement.time]
    if not times:
        return None
    layers = [row.layer for row in times[0].rows]
    seconds = {layer: [row.seconds for time in times for row in time.rows if row.layer is layer] for layer in layers}
    errors = [time.closure_error for time in times if time.closure_error is not None]
    return TimeSummary(
        rows=[
            RowSummary(layer.label, sum(seconds[layer]) / len(seconds[layer]), layer.value, layer.owner.value)
            for layer in layers
        ],
        e2e_s=sum(time.e2e_s for time in times) / len(times),
        closure_error=max(errors, key=abs) if len(errors) == len(times) else None,
        note=next((time.note for time in times if time.note), ""),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    measured = [value for value in values if value is not None]
    return sum(measured) / len(measured) if measured else None
