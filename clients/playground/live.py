"""What the platform does right now, as tiles with small charts of the last minutes.

Drawn from `GET /status` alone, as HTML and SVG. What the platform does not say is "-": nothing unknown becomes a zero.
"""

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

KEPT_S = 300.0
_LEAST_S = 60.0  # a chart begins with this span, and grows
_GAP_S = 10.0  # a chart's line breaks where nothing was seen for so long
_WIDTH, _HEIGHT = 120.0, 28.0
_GIB = 1024.0**3


@dataclass(frozen=True)
class Sample:
    """What /status said at `at_s` (time.monotonic)."""

    at_s: float
    status: Mapping[str, Any]


Reader = Callable[[Mapping[str, Any]], float | None]


@dataclass(frozen=True)
class _Tile:
    """A figure: how it is found in a part of /status, how it is written, and what a chart's height is at least."""

    label: str
    read: Reader
    write: Callable[[float], str] = "{:,.0f}".format
    least: float = 1.0
    second: Reader | None = None  # written after the first, as in p50 / p95


def _at(*names: str) -> Reader:
    def read(part: Mapping[str, Any]) -> float | None:
        found: Any = part
        for name in names:
            found = found.get(name) if isinstance(found, Mapping) else None
        return float(found) if isinstance(found, (int, float)) else None

    return read


def _used(name: str) -> Reader:
    total, available = _at(f"{name}_total_bytes"), _at(f"{name}_available_bytes")

    def read(part: Mapping[str, Any]) -> float | None:
        all_of_it, free = total(part), available(part)
        return None if all_of_it is None or free is None else all_of_it - free

    return read


def seconds(value: float) -> str:
    """A time of so many seconds, as it is read best."""
    return f"{value * 1000:,.0f} ms" if value < 1 else f"{value:,.2f} s"


def _bytes(value: float) -> str:
    return f"{value / _GIB:,.1f} GiB" if value >= _GIB else f"{value / 1024**2:,.0f} MiB"


_MODEL = (
    _Tile("running / waiting", _at("running"), second=_at("waiting")),
    _Tile("requests/s", _at("recent", "requests_per_s"), "{:,.2f}".format),
    _Tile("output tokens/s", _at("recent", "output_tokens_per_s"), "{:,.1f}".format),
    _Tile(
        "duration p50 / p95",
        _at("recent", "duration_s", "p50"),
        seconds,
        0.01,
        _at("recent", "duration_s", "p95"),
    ),
    _Tile("ttft p50 / p95", _at("recent", "ttft_s", "p50"), seconds, 0.01, _at("recent", "ttft_s", "p95")),
    _Tile("CPU cores", _at("cpu_cores"), "{:,.2f}".format),
    _Tile("memory", _at("memory_bytes"), _bytes),
)
_HOST = (
    _Tile("CPU", _at("cpu_percent"), "{:.0f} %".format, 100),
    _Tile("memory used / all", _used("memory"), _bytes, second=_at("memory_total_bytes")),
)
_GPU = (
    _Tile("utilization", _at("utilization_percent"), "{:.0f} %".format, 100),
    _Tile("memory used / all", _at("memory_used_bytes"), _bytes, second=_at("memory_total_bytes")),
    _Tile("power", _at("power_w"), "{:,.0f} W".format),
)


def drawn(samples: Sequence[Sample], problem: str | None = None) -> str:
    """The page's HTML: a group of tiles for each model of the newest sample, for the host and each of its GPUs."""
    told = f'<p class="problem" role="alert">{html.escape(problem)}</p>' if problem else ""
    if not samples:
        return told or "<p>Nothing has been seen yet.</p>"
    newest = samples[-1].status
    groups = [_model(samples, index, model) for index, model in enumerate(newest.get("models", []))]
    return told + "".join(groups) + _hardware(samples, newest.get("hardware"))


def _model(samples: Sequence[Sample], index: int, model: Mapping[str, Any]) -> str:
    name, state = str(model.get("name", "-")), str(model.get("state", "-"))
    series = [(sample.at_s, _named(sample.status.get("models", []), index, "name", name)) for sample in samples]
    detail = html.escape(str(model.get("detail") or ""))
    head = f'{html.escape(name)} <span class="state {html.escape(state)}">{html.escape(state)}</span>'
    return _group(head, detail, _MODEL, series)


def _hardware(samples: Sequence[Sample], hardware: Mapping[str, Any] | None) -> str:
    found = [(sample.at_s, sample.status.get("hardware") or {}) for sample in samples]
    groups = _group("host", "", _HOST, found)
    for index, gpu in enumerate((hardware or {}).get("gpus") or []):
        series = [(at_s, _named(part.get("gpus") or [], index, "index", gpu.get("index"))) for at_s, part in found]
        notes = [str(gpu.get("name") or ""), f"of {gpu['model']}" if gpu.get("model") else ""]
        notes += ["shared" if gpu.get("shared") else "", "lost" if gpu.get("lost") else ""]
        detail = html.escape(", ".join(note for note in notes if note))
        groups += _group(f"GPU {html.escape(str(gpu.get('index', index)))}", detail, _GPU, series)
    return groups


def _named(parts: Sequence[Mapping[str, Any]], index: int, field: str, value: Any) -> Mapping[str, Any]:
    """The part whose `field` is `value`, most likely at `index`."""
    if index < len(parts) and parts[index].get(field) == value:
        return parts[index]
    return next((part for part in parts if part.get(field) == value), {})


def _group(head: str, detail: str, tiles: Sequence[_Tile], series: Sequence[tuple[float, Mapping[str, Any]]]) -> str:
    drawn_tiles = "".join(_tile(tile, series) for tile in tiles)
    note = f'<p class="detail">{detail}</p>' if detail else ""
    return f'<section class="group"><h3>{head}</h3>{note}<div class="tiles">{drawn_tiles}</div></section>'


def _tile(tile: _Tile, series: Sequence[tuple[float, Mapping[str, Any]]]) -> str:
    points = [(at_s, tile.read(part)) for at_s, part in series]
    text = _written(points[-1][1], tile.write)
    if tile.second is not None:
        text += f" / {_written(tile.second(series[-1][1]), tile.write)}"
    label = html.escape(tile.label)
    return f'<div class="tile"><span>{label}</span><b>{text}</b>{_chart(points, tile.least, label)}</div>'


def _written(value: float | None, write: Callable[[float], str]) -> str:
    return "-" if value is None else write(value)


def _chart(points: Sequence[tuple[float, float | None]], least: float, label: str) -> str:
    end_s = points[-1][0]
    span_s = max(_LEAST_S, end_s - points[0][0])
    known = [value for _, value in points if value is not None]
    top = max([least, *known])
    path, before_s = "", None
    for at_s, value in points:
        if value is None:
            before_s = None
            continue
        step = "L" if before_s is not None and at_s - before_s < _GAP_S else "M"
        x, y = _WIDTH * (1 - (end_s - at_s) / span_s), (_HEIGHT - 2) * (1 - value / top) + 1
        path, before_s = path + f"{step}{x:.1f} {y:.1f}", at_s
    line = f'<path d="{path}"/>' if path else ""
    size = f'viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" preserveAspectRatio="none"'
    return f'<svg {size} role="img" aria-label="{label} over the last {span_s:.0f} s">{line}</svg>'
