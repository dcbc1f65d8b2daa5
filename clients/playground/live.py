"""The load of the platform right now, as tiles with small charts of the last minutes.

Drawn from `GET /status` alone, as HTML and SVG. A figure that is not known is "-", never 0.
"""

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from clients.documents import Gpu, Hardware, ModelStatus, Percentiles, Status

HISTORY_S = 300.0
TEXT_PATHS = ("/v1/chat/completions", "/v1/completions")
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
    """A figure of a part of the status: one value or two, such as p50 and p95, and a chart of the first.

    `min_top` is the smallest value at the top of the chart. `of_text`: only models that write text have it.
    """

    label: str
    read: Callable[[Part], Sequence[float | None]]
    write: Callable[[float], str] = "{:,.0f}".format
    min_top: float = 1.0
    of_text: bool = False


def seconds(value: float) -> str:
    """The time in milliseconds or seconds."""
    return f"{value * 1000:,.0f} ms" if value < 1 else f"{value:,.2f} s"


def _bytes(value: float) -> str:
    return f"{value / _GIB:,.1f} GiB" if value >= _GIB else f"{value / 1024**2:,.0f} MiB"


def _percentiles(values: Percentiles | None) -> Sequence[float | None]:
    return (values.p50, values.p95) if values else (None, None)


def _host_memory(host: Hardware | None) -> Sequence[float | None]:
    if host is None:
        return None, None
    return host.memory_total_bytes - host.memory_available_bytes, host.memory_total_bytes


_MODEL: Sequence[_Tile[ModelStatus]] = (
    _Tile("running / waiting", lambda model: (model.running, model.waiting)),
    _Tile("requests/s", lambda model: (model.recent.requests_per_s if model.recent else None,), "{:,.2f}".format),
    _Tile(
        "output tokens/s",
        lambda model: (model.recent.output_tokens_per_s if model.recent else None,),
        "{:,.1f}".format,
        of_text=True,
    ),
    _Tile(
        "duration p50 / p95",
        lambda model: _percentiles(model.recent.duration_s if model.recent else None),
        seconds,
        0.01,
    ),
    _Tile(
        "ttft p50 / p95",
        lambda model: _percentiles(model.recent.ttft_s if model.recent else None),
        seconds,
        0.01,
        of_text=True,
    ),
    _Tile("CPU cores", lambda model: (model.cpu_cores,), "{:,.2f}".format),
    _Tile("memory", lambda model: (model.memory_bytes,), _bytes),
)
_HOST: Sequence[_Tile[Hardware | None]] = (
    _Tile("CPU", lambda host: (host.cpu_percent if host else None,), "{:.0f} %".format, 100),
    _Tile("memory used / all", _host_memory, _bytes),
)
_GPU: Sequence[_Tile[Gpu]] = (
    _Tile("utilization", lambda gpu: (gpu.utilization_percent,), "{:.0f} %".format, 100),
    _Tile("memory used / all", lambda gpu: (gpu.memory_used_bytes, gpu.memory_total_bytes), _bytes),
    _Tile("power", lambda gpu: (gpu.power_w,), "{:,.0f} W".format),
)


def draw(samples: Sequence[Sample], problem: str | None = None) -> str:
    """The page's HTML: a group of tiles for each model of the newest sample, for the host and each of its GPUs.

    With a problem the platform does not answer: states and figures are not known then, and the charts end.
    """
    alert = f'<p class="problem" role="alert">{html.escape(problem)}</p>' if problem else ""
    if not samples:
        return alert or "<p>Nothing has been seen yet.</p>"
    newest = samples[-1].status
    is_known = problem is None
    groups = "".join(_model(samples, model, is_known) for model in newest.models)
    groups += _hardware(samples, newest.hardware, is_known)
    return alert + (groups if is_known else f'<div class="unknown">{groups}</div>')


def writes_text(model: ModelStatus) -> bool:
    """Whether the model answers with text of its own; one without paths, not being up, goes by its kind."""
    return any(path.startswith(TEXT_PATHS) for path in model.paths) or (not model.paths and model.kind == "vllm")


def _model(samples: Sequence[Sample], model: ModelStatus, is_known: bool) -> str:
    series = [(sample.at_s, _find(sample.status.models, "name", model.name)) for sample in samples]
    state = html.escape(model.state) if is_known else "unknown"
    head = f'{html.escape(model.name)} <span class="state {state}">{state}</span>'
    tiles = [tile for tile in _MODEL if writes_text(model) or not tile.of_text]
    return _group(head, html.escape(_detail(model)) if is_known else "", tiles, model, series, is_known)


def _detail(model: ModelStatus) -> str:
    """Its versions where there is more than the first, what it does, and how long it is idle."""
    versions = [model.version] if model.version not in (None, "v1") or model.others else []
    versions += [
        f"{other.version} {other.role}" + ("" if other.percent is None else f" {other.percent} %")
        for other in model.others
    ]
    notes = [", ".join(filter(None, versions)), model.detail]
    if model.residence is not None:
        idle_s = model.residence.idle_s
        notes += [f"idle for {idle_s:,.0f} s"] if idle_s is not None and idle_s >= 1 else []
        notes += ["makes room next"] if model.residence.next_out else []
    return " · ".join(filter(None, notes))


def _hardware(samples: Sequence[Sample], hardware: Hardware | None, is_known: bool) -> str:
    hosts = [(sample.at_s, sample.status.hardware) for sample in samples]
    groups = _group("host", "", _HOST, hardware, hosts, is_known)
    for gpu in hardware.gpus if hardware else []:
        series = [(at_s, _find(host.gpus if host else [], "index", gpu.index)) for at_s, host in hosts]
        notes = [gpu.name or "", f"of {gpu.model}" if gpu.model else ""]
        notes += ["shared" if gpu.shared else "", "lost" if gpu.lost else ""]
        detail = html.escape(", ".join(note for note in notes if note))
        groups += _group(f"GPU {gpu.index}", detail, _GPU, gpu, series, is_known)
    return groups


def _find(parts: Sequence[Part], field: str, value: str | int) -> Part | None:
    return next((part for part in parts if getattr(part, field) == value), None)


def _group(
    head: str,
    detail: str,
    tiles: Sequence[_Tile[Part]],
    newest: Part,
    series: Sequence[tuple[float, Part | None]],
    is_known: bool,
) -> str:
    """Tiles with the figures of the newest part; the part in the series is None where a status did not have it."""
    body = ""
    for tile in tiles:
        values = [value if is_known else None for value in tile.read(newest)]
        text = " / ".join("-" if value is None else tile.write(value) for value in values)
        points = [(at_s, None if part is None else tile.read(part)[0]) for at_s, part in series]
        label = html.escape(tile.label)
        chart = _chart(points, tile.min_top, label)
        body += f'<div class="tile"><span>{label}</span><b>{text}</b>{chart}</div>'
    note = f'<p class="detail">{detail}</p>' if detail else ""
    return f'<section class="group"><h3>{head}</h3>{note}<div class="tiles">{body}</div></section>'


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
