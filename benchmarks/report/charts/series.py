"""The charts of the hardware over the time of a measurement: a line a rung, a figure a pass.

Values are the sampler's. Only the cores in use are computed, from the processor time that neighbouring samples count;
no line crosses a stretch that was not sampled.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

from benchmarks.analysis.hardware import Sample
from benchmarks.report.charts.base import COLOURS, MARKS, Chart, Entry, Figure, axis_of, line_style, plain
from benchmarks.report.neighbours import levels, with_users
from benchmarks.result import Result
from servers.telemetry.nvml import GpuSample

Points = Sequence[float | None]
Read = Callable[[Sequence[Sample], int], Points]
"""The values of a chart, one a sample; the number is the index of a GPU."""

_GIB = 2**30


def series(result: Result) -> list[Chart]:
    """The charts of which anything was measured."""
    charts = [_chart(result, title, unit, read, ()) for title, unit, read in _HOST]
    samples = [sample for rung in result.rungs for samples in rung.series for sample in samples]
    count = max((len(sample.gpus) for sample in samples), default=0)
    charts += [_chart(result, title, unit, _gpu(read), range(count)) for title, unit, read in _GPU]
    return [chart for chart in charts if chart]


def _chart(result: Result, title: str, unit: str, read: Read, gpus: Sequence[int]) -> Chart | None:
    names = list(dict.fromkeys(rung.name for rung in result.rungs))
    visible: set[str] = set()
    figures = {}
    for users, number, gpu in _choices(result, gpus):
        data = []
        for rung in result.rungs:
            samples = rung.series[number] if rung.users == users and number < len(rung.series) else []
            values = read(samples, gpu)
            if any(value is not None for value in values):
                times = [sample.t_s for sample in samples]
                visible.add(rung.name)
                data.append(_line(rung.name, names.index(rung.name), times, values))
        if data:
            place = f", GPU {gpu}" if len(gpus) > 1 else ""
            layout = {"height": 300, "xaxis": axis_of("s since it began"), "yaxis": axis_of(unit), "showlegend": False}
            figures[f"{with_users(users)}, pass {number + 1}{place}"] = Figure(data, layout)
    legend = [
        Entry(name, place % COLOURS, symbol=MARKS[place % len(MARKS)])
        for place, name in enumerate(names)
        if name in visible
    ]
    caption = f"{title} over the time of a measurement, a line a rung."
    return Chart(title, caption, figures, legend) if figures else None


def _choices(result: Result, gpus: Sequence[int]) -> Iterator[tuple[int | None, int, int]]:
    passes = max((len(rung.series) for rung in result.rungs), default=0)
    return ((users, number, gpu) for users in levels(result) for number in range(passes) for gpu in gpus or (0,))


def _line(name: str, place: int, times: Sequence[float], values: Points) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "x": times,
        "y": values,
        "connectgaps": False,
        "hovertemplate": f"{plain(name)}: %{{y:.4g}} at %{{x:.1f}} s<extra></extra>",
        **line_style(place),
    }


def _cores(samples: Sequence[Sample], _: int) -> Points:
    """Cores in use since the sample before; not known for the first."""
    usage = [(sample.t_s, sample.rung.cpu_s if sample.rung else None) for sample in samples]
    return [
        None,
        *(
            (after - before) / (end_s - begin_s)
            if before is not None and after is not None and after >= before
            else None
            for (begin_s, before), (end_s, after) in pairwise(usage)
        ),
    ]


def _memory(samples: Sequence[Sample], _: int) -> Points:
    resident = [sample.rung.resident_bytes if sample.rung else None for sample in samples]
    return [None if value is None else value / _GIB for value in resident]


def _busy(samples: Sequence[Sample], _: int) -> Points:
    return [sample.host.cpu_percent for sample in samples]


def _gpu(read: Callable[[GpuSample], float | None]) -> Read:
    def points(samples: Sequence[Sample], index: int) -> Points:
        return [next((read(gpu) for gpu in sample.gpus if gpu.index == index), None) for sample in samples]

    return points


def _gpu_memory(gpu: GpuSample) -> float | None:
    return None if gpu.memory_used_bytes is None else gpu.memory_used_bytes / _GIB


_HOST: Sequence[tuple[str, str, Read]] = (
    ("Processor cores used by the rung", "cores", _cores),
    ("Host's processors in use", "% of all cores", _busy),
    ("Memory of the rung's processes", "GiB resident", _memory),
)
_GPU: Sequence[tuple[str, str, Callable[[GpuSample], float | None]]] = (
    ("GPU busy", "% of the time", lambda gpu: gpu.utilization_percent),
    ("GPU: multiprocessors in use", "% SM", lambda gpu: gpu.sm_util_percent),
    ("GPU power", "W", lambda gpu: gpu.power_w),
    ("GPU memory", "GiB used", _gpu_memory),
)
