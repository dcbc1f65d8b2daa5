"""What a running platform says of itself: as a view of one screen, or as JSON.

The view shows what fits the terminal, figures of the last half minute where they are rates or times. What is not known
is "-", never 0.
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from typing import Any, Literal, NamedTuple

import httpx
from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from clients import unreachable

_COLOURS = {"ready": "green", "failed": "red", "pulling": "cyan", "starting": "yellow", "draining": "yellow"}
_GIB = 1024**3


def show(url: str, key: str | None, as_json: bool) -> int:
    """Print the platform's status; the exit status is 1 when nothing answers or a required model is not ready."""
    try:
        response = ask(url, key)
    except httpx.TransportError:
        return unreachable.report(url)
    if response.status_code != 200:
        print(f"{response.status_code}: {response.text}", file=sys.stderr)
        return 1
    document = response.json()
    if as_json:
        print(json.dumps(document, indent=2))
    else:
        console = Console(highlight=False)
        console.print(view(document, console))
        for model in document["models"]:
            for path in model["paths"]:
                console.print(f"{document['address']}{path}  {model['name']}", soft_wrap=True)
    return 0 if all(model["state"] == "ready" for model in document["models"] if model["required"]) else 1


def ask(url: str, key: str | None) -> httpx.Response:
    """The platform's answer to `GET /status`. Raises httpx.TransportError when there is none within 10 s."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx.get(f"{url}/status", headers=headers, timeout=10)


def view(document: Mapping[str, Any], console: Console) -> RenderableType:
    """The models, what is to be said about those that are not as they should be, and the machine, as it fits."""
    models = document["models"]
    parts: list[RenderableType] = [_models(models, console)]
    if notes := [note for model in models if (note := _note(model))]:
        parts += ["", *notes]
    if document["hardware"]:
        parts += ["", *_machine(document["hardware"])]
    return Group(*parts)


class _Column(NamedTuple):
    """What the table shows of a model; on a narrow terminal the columns with the least `worth` go first."""

    heading: str
    show: Callable[[Mapping[str, Any]], str]
    worth: int
    justify: Literal["left", "right"] = "right"


_COLUMNS = (
    _Column("model", lambda model: model["name"], 9, "left"),
    _Column("kind", lambda model: model["kind"], 1, "left"),
    _Column("state", lambda model: model["state"], 9, "left"),
    _Column("for", lambda model: _span(model["in_state_s"]), 2),
    _Column("run", lambda model: str(model["running"]), 9),
    _Column("wait", lambda model: str(model["waiting"]), 9),
    _Column("req/s", lambda model: _number(model["recent"]["requests_per_s"]), 9),
    _Column("tok/s", lambda model: _number(model["recent"]["output_tokens_per_s"]), 9),
    _Column("p50 s", lambda model: _percentile(model["recent"]["duration_s"], "p50"), 9),
    _Column("p95 s", lambda model: _percentile(model["recent"]["duration_s"], "p95"), 6),
    _Column("ttft s", lambda model: _percentile(model["recent"]["ttft_s"], "p50"), 8),
    _Column("cores", lambda model: _number(model["cpu_cores"]), 5),
    _Column("GiB", lambda model: _gib(model["memory_bytes"]), 7),
    _Column("restarts", lambda model: str(model["restarts"]), 3),
)
_FOLDED_NAME = 12


def _models(models: Sequence[Mapping[str, Any]], console: Console) -> Table:
    longest = max((len(model["name"]) for model in models), default=0)
    for least in range(10):
        columns = [column for column in _COLUMNS if column.worth >= least]
        # What is worth more than a name on one line stays, closer together, and names go over two lines.
        folded = max(0, longest - _FOLDED_NAME) if least > 4 else 0
        table = _table(models, columns, padding=1 if least > 4 else 2)
        wanted = Measurement.get(console, console.options.update(max_width=10_000), table).maximum
        if wanted - folded <= console.width:
            break
    return table


def _table(models: Sequence[Mapping[str, Any]], columns: Sequence[_Column], padding: int) -> Table:
    table = Table(box=None, padding=(0, padding, 0, 0), pad_edge=False)
    for column in columns:
        is_name = column.heading == "model"
        table.add_column(column.heading, justify=column.justify, no_wrap=not is_name, overflow="fold")
    for model in models:
        colour = {"state": _COLOURS.get(model["state"], "")}
        table.add_row(*(Text(column.show(model), colour.get(column.heading, "")) for column in columns))
    return table


def _note(model: Mapping[str, Any]) -> Text | None:
    """A line on a model that is not ready, was not always, or failed requests."""
    said = []
    if model["state"] != "ready":
        said.append(f"{model['state']} for {_span(model['in_state_s'])}")
    if restarts := model["restarts"]:
        said.append(f"restarted {restarts} time{'s' * (restarts != 1)}")
    if failed := model["recent"]["failed"]:
        said.append(f"{failed} of the last {model['recent']['requests']} requests failed")
    words = ": ".join(filter(None, (", ".join(said), model["detail"])))
    return Text.assemble((model["name"], _COLOURS.get(model["state"], "")), "  ", words) if words else None


def _machine(hardware: Mapping[str, Any]) -> list[Text]:
    """A line on the host and one on each GPU: busy, memory, power, whose it is."""
    total = hardware["memory_total_bytes"]
    used = total - hardware["memory_available_bytes"]
    rows = [["host", _unit(_number(hardware["cpu_percent"]), "% CPU"), _of(used, total)]]
    for gpu in hardware["gpus"]:
        busy = "lost" if gpu["lost"] else _unit(_number(gpu["utilization_percent"]), "% busy")
        memory, power = _of(gpu["memory_used_bytes"], gpu["memory_total_bytes"]), _unit(_number(gpu["power_w"]), "W")
        owner = "shared" if gpu["shared"] else gpu["model"] or "-"
        rows.append([f"GPU {gpu['index']}", busy, memory, power, owner, gpu["name"] or "-"])
    widths = [max(map(len, cells)) for cells in zip_longest(*rows, fillvalue="")]
    shown = [Text("  ".join(map(str.ljust, row, widths)).rstrip(), "red" if row[1] == "lost" else "") for row in rows]
    if reason := hardware["nvml_error"]:
        shown.append(Text(reason, "dim"))
    for line in shown:
        line.no_wrap, line.overflow = True, "ellipsis"
    return shown


def _number(value: float | None) -> str:
    """As many figures as say something."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 or not value else f"{value:.2f}"


def _percentile(values: Mapping[str, float] | None, name: str) -> str:
    if values is None:
        return "-"
    value = values[name]
    return f"{value:.{3 if value < 1 else 2 if value < 10 else 1}f}"


def _unit(number: str, unit: str) -> str:
    return number if number == "-" else f"{number} {unit}"


def _gib(size_bytes: int | None) -> str:
    return "-" if size_bytes is None else f"{size_bytes / _GIB:.{1 if size_bytes > _GIB / 10 else 2}f}"


def _of(used_bytes: int | None, total_bytes: int | None) -> str:
    return "-" if used_bytes is None else f"{_gib(used_bytes)} of {_gib(total_bytes)} GiB used"


def _span(seconds: float) -> str:
    """A stretch of time in its largest fitting unit."""
    for unit, size_s in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size_s:
            return f"{seconds / size_s:.0f} {unit}"
    return f"{seconds:.0f} s"
