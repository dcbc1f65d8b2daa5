"""The load of the platform right now, as tiles with small charts of the last minutes.

Drawn from `GET /status` alone, as HTML and SVG. A figure that is not known is "-", never 0.
"""

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from clients.documents import Gpu, Hardware, ModelStatus, Percentiles, Recent, Status

HISTORY_S = 300.0
_MIN_SPAN_S = 60.0  # a chart begins with this span, and grows
_GAP_S = 10.0  # a chart's line breaks where no sample came for so long
_WIDTH, _HEIGHT = 120.0, 28.0
_GIB = 1024.0**3


@dataclass(frozen=True)
class Sample:
    """The status at `at_s` (time.monotonic)."""

    at_s: float
    status: Status


Part = TypeVar("Part")  # a model, the host or a GPU


@dataclass(frozen=True)
class _Tile(Generic[Part]):
    """A figure of a part of the status: how it is read and written, and the smallest value at the top of its chart."""

    label: str
    read: Callable[[Part], float | None]
    write: Callable[[float], str] = "{:,.0f}".format
    min_top: float = 1.0
    second: Callable[[Part], float | None] | None = None  # written after the first, as in p50 / p95


def _recent(read: Callable[[Recent], float | None]) -> Callable[[ModelStatus], float | None]:
    return lambda model: read(model.recent) if model.recent else None


def _p50(values: Percentiles | None) -> float | None:
    return values.p50 if values else None


def _p95(values: Percentiles | None) -> float | None:
    return values.p95 if values else None


def seconds(value: float) -> str:
    """The time in milliseconds or seconds."""
    return f"{value * 1000:,.0f} ms" if value < 1 else f"{value:,.2f} s"


def _bytes(value: float) -> str:
    return f"{value / _GIB:,.1f} GiB" if value >= _GIB else f"{value / 1024**2:,.0f} MiB"


_MODEL = (
    _Tile[ModelStatus]("running / waiting", lambda model: model.running, second=lambda model: model.waiting),
    _Tile[ModelStatus]("requests/s", _recent(lambda recent: recent.requests_per_s), "{:,.2f}".format),
    _Tile[ModelStatus]("output tokens/s", _recent(lambda recent: recent.output_tokens_per_s), "{:,.1f}".format),
    _Tile[ModelStatus](
        "duration p50 / p95",
        _recent(lambda recent: _p50(recent.duration_s)),
        seconds,
        0.01,
        _recent(lambda recent: _p95(recent.duration_s)),
    ),
    _Tile[ModelStatus](
        "ttft p50 / p95",
        _recent(lambda recent: _p50(recent.ttft_s)),
        seconds,
        0.01,
        _recent(lambda recent: _p95(recent.ttft_s)),
    ),
    _Tile[ModelStatus]("CPU cores", lambda model: model.cpu_cores, "{:,.2f}".format),
    _Tile[ModelStatus]("memory", lambda model: model.memory_bytes, _bytes),
)
_HOST = (
    _Tile[Hardware]("CPU", lambda host: host.cpu_percent, "{:.0f} %".format, 100),
    _Tile[Hardware](
        "memory used / all",
        lambda host: host.memory_total_bytes - host.memory_available_bytes,
        _bytes,
        second=lambda host: host.memory_total_bytes,
    ),
)
_GPU = (
    _Tile[Gpu]("utilization", lambda gpu: gpu.utilization_percent, "{:.0f} %".format, 100),
    _Tile[Gpu](
        "memory used / all", lambda gpu: gpu.memory_used_bytes, _bytes, second=lambda gpu: gpu.memory_total_bytes
    ),
    _Tile[Gpu]("power", lambda gpu: gpu.power_w, "{:,.0f} W".format),
)
# A part of the status at each moment; None where the status did not have it.
_Series = Sequence[tuple[float, Part | None]]


def draw(samples: Sequence[Sample], problem: str | None = None) -> str:
    """The page's HTML: a group of tiles for each model of the newest sample, for the host and each of its GPUs."""
    alert = f'<p class="problem" role="alert">{html.escape(problem)}</p>' if problem else ""
    if not samples:
        return alert or "<p>Nothing has been seen yet.</p>"
    newest = samples[-1].status
    return alert + "".join(_model(samples, model) for model in newest.models) + _hardware(samples, newest.hardware)


def _model(samples: Sequence[Sample], model: ModelStatus) -> str:
    series = [
        (sample.at_s, next((entry for entry in sample.status.models if entry.name == model.name), None))
        for sample in samples
    ]
    state = html.escape(model.state)
    head = f'{html.escape(model.name)} <span class="state {state}">{state}</span>'
    return _group(head, html.escape(model.detail), _MODEL, series)


def _hardware(samples: Sequence[Sample], hardware: Hardware | None) -> str:
    hosts = [(sample.at_s, sample.status.hardware) for sample in samples]
    groups = _group("host", "", _HOST, hosts)
    for gpu in hardware.gpus if hardware else []:
        series = [
            (at_s, next((entry for entry in host.gpus if entry.index == gpu.index), None) if host else None)
            for at_s, host in hosts
        ]
        notes = [gpu.name or "", f"of {gpu.model}" if gpu.model else ""]
        notes += ["shared" if gpu.shared else "", "lost" if gpu.lost else ""]
        detail = html.escape(", ".join(note for note in notes if note))
        groups += _group(f"GPU {gpu.index}", detail, _GPU, series)
    return groups


def _group(head: str, detail: str, tiles: Sequence[_Tile[Part]], series: _Series[Part]) -> str:
    body = "".join(_tile(tile, series) for tile in tiles)
    note = f'<p class="detail">{detail}</p>' if detail else ""
    return f'<section class="group"><h3>{head}</h3>{note}<div class="tiles">{body}</div></section>'


def _tile(tile: _Tile[Part], series: _Series[Part]) -> str:
    points = [(at_s, None if part is None else tile.read(part)) for at_s, part in series]
    text = _text(points[-1][1], tile.write)
    if tile.second is not None:
        part = series[-1][1]
        text += f" / {_text(None if part is None else tile.second(part), tile.write)}"
    label = html.escape(tile.label)
    return f'<div class="tile"><span>{label}</span><b>{text}</b>{_chart(points, tile.min_top, label)}</div>'


def _text(value: float | None, write: Callable[[float], str]) -> str:
    return "-" if value is None else write(value)


def _chart(points: Sequence[tuple[float, float | None]], min_top: float, label: str) -> str:
    end_s = points[-1][0]
    span_s = max(_MIN_SPAN_S, end_s - points[0][0])
    top = max([min_top, *(value for _, value in points if value is not None)])
    path, last_s = "", None
    for at_s, value in points:
        if value is None:
            last_s = None
            continue
        step = "L" if last_s is not None and at_s - last_s < _GAP_S else "M"
        x, y = _WIDTH * (1 - (end_s - at_s) / span_s), (_HEIGHT - 2) * (1 - value / top) + 1
        path, last_s = path + f"{step}{x:.1f} {y:.1f}", at_s
    line = f'<path d="{path}"/>' if path else ""
    size = f'viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" preserveAspectRatio="none"'
    return f'<svg {size} role="img" aria-label="{label} over the last {span_s:.0f} s">{line}</svg>'
