"""The charts of what the hardware did over the time of a measurement: a line a rung, a figure a pass.

Values are the sampler's. Only the cores in use are computed, from the processor time that neighbouring samples count;
no line crosses a stretch that was not sampled.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from benchmarks.report.chart import COLOURS, MARKS, Chart, Entry, Figure, axis_of, line_style, shown
from benchmarks.report.neighbours import Result, levels, with_users

Sample = Mapping[str, Any]
Points = Sequence[float | None]
_GIB = 2**30


def series(result: Result) -> list[Chart]:
    """Those charts of which anything was measured."""
    found = [_chart(result, title, unit, read, ()) for title, unit, read in _HOST]
    count = max(
        (len(sample["gpus"]) for rung in result["rungs"] for one in rung["series"] for sample in one), default=0
    )
    found += [_chart(result, title, unit, _gpu(key, scale), range(count)) for title, unit, key, scale in _GPU]
    return [chart for chart in found if chart]


def _chart(
    result: Result, title: str, unit: str, read: Callable[[Sequence[Sample], int], Points], gpus: Sequence[int]
) -> Chart | None:
    names = list(dict.fromkeys(rung["name"] for rung in result["rungs"]))
    drawn: set[str] = set()
    figures = {}
    for users, number, gpu in _choices(result, gpus):
        data = []
        for rung in result["rungs"]:
            samples = rung["series"][number] if rung["users"] == users and number < len(rung["series"]) else []
            values = read(samples, gpu)
            if any(value is not None for value in values):
                times = [sample["t_s"] for sample in samples]
                drawn.add(rung["name"])
                data.append(_line(rung["name"], names.index(rung["name"]), times, values))
        if data:
            place = f", GPU {gpu}" if len(gpus) > 1 else ""
            layout = {"height": 300, "xaxis": axis_of("s since it began"), "yaxis": axis_of(unit), "showlegend": False}
            figures[f"{with_users(users)}, pass {number + 1}{place}"] = Figure(data, layout)
    legend = [
        Entry(name, place % COLOURS, symbol=MARKS[place % len(MARKS)])
        for place, name in enumerate(names)
        if name in drawn
    ]
    says = f"{title} over the time of a measurement, a line a rung."
    return Chart(title, says, figures, legend) if figures else None


def _choices(result: Result, gpus: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    passes = max((len(rung["series"]) for rung in result["rungs"]), default=0)
    return ((users, number, gpu) for users in levels(result) for number in range(passes) for gpu in gpus or (0,))


def _line(name: str, place: int, times: Sequence[float], values: Points) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "x": times,
        "y": values,
        "connectgaps": False,
        "hovertemplate": f"{shown(name)}: %{{y:.4g}} at %{{x:.1f}} s<extra></extra>",
        **line_style(place),
    }


def _cores(samples: Sequence[Sample], _: int) -> Points:
    """Cores in use since the sample before; nobody knows for the first."""
    used = [(sample["t_s"], (sample["models"].get("model") or {}).get("cpu_s")) for sample in samples]
    return [
        None,
        *(
            (after - before) / (end_s - begin_s)
            if before is not None and after is not None and after >= before
            else None
            for (begin_s, before), (end_s, after) in pairwise(used)
        ),
    ]


def _memory(samples: Sequence[Sample], _: int) -> Points:
    found = [(sample["models"].get("model") or {}).get("resident_bytes") for sample in samples]
    return [None if value is None else value / _GIB for value in found]


def _busy(samples: Sequence[Sample], _: int) -> Points:
    return [sample["host"]["cpu_percent"] for sample in samples]


def _gpu(key: str, scale: float) -> Callable[[Sequence[Sample], int], Points]:
    def read(samples: Sequence[Sample], index: int) -> Points:
        found = [next((gpu[key] for gpu in sample["gpus"] if gpu["index"] == index), None) for sample in samples]
        return [None if value is None else value / scale for value in found]

    return read


_HOST: Sequence[tuple[str, str, Callable[[Sequence[Sample], int], Points]]] = (
    ("Processor cores used by the rung", "cores", _cores),
    ("Host's processors in use", "% of all cores", _busy),
    ("Memory of the rung's processes", "GiB resident", _memory),
)
_GPU = (
    ("GPU busy", "% of the time", "utilization_percent", 1),
    ("GPU: multiprocessors in use", "% SM", "sm_util_percent", 1),
    ("GPU power", "W", "power_w", 1),
    ("GPU memory", "GiB used", "memory_used_bytes", _GIB),
)
