"""The status of a running platform: as a view of one screen, or as JSON.

The view shows as many columns as fit the terminal. Rates and times are those of the last half minute. A figure that is
not known is "-", never 0.
"""

import json
from collections.abc import Callable
from itertools import zip_longest

import httpx
from rich.console import Console, Group, RenderableType
from rich.text import Text

from clients import rejection, unreachable
from clients.documents import TAKES_REQUESTS, Hardware, ModelStatus, Percentiles, Recent, Status, read_status
from clients.figures import gib, span
from clients.model_table import COLOURS, Column, fit


def show(url: str, key: str | None, as_json: bool) -> int:
    """Print the platform's status; the exit status is 1 when nothing answers or a required model is not ready."""
    try:
        response = fetch(url, key)
    except httpx.TransportError:
        return unreachable.report(url)
    if response.status_code != 200:
        return rejection.report(response.status_code, response.text)
    status = read_status(response.content)
    if as_json:
        print(json.dumps(response.json(), indent=2))
    else:
        console = Console(highlight=False)
        console.print(view(status, console))
        for model in status.models:
            for path in model.paths:
                console.print(f"{status.address}{path}  {model.name}", soft_wrap=True)
    return 0 if all(model.state in TAKES_REQUESTS for model in status.models if model.required) else 1


def fetch(url: str, key: str | None) -> httpx.Response:
    """The platform's answer to `GET /status`. Raises httpx.TransportError when there is none within 10 s."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx.get(f"{url}/status", headers=headers, timeout=10)


def view(status: Status, console: Console) -> RenderableType:
    """The models as a table, a note on each one that has problems, and the machine; as wide as the console."""
    parts: list[RenderableType] = [fit(status.models, _COLUMNS, console)]
    if notes := [note for model in status.models if (note := _note(model))]:
        parts += ["", *notes]
    if status.hardware:
        parts += ["", *_machine(status.hardware)]
    return Group(*parts)


def _of_recent(text: Callable[[Recent], str]) -> Callable[[ModelStatus], str]:
    return lambda model: text(model.recent) if model.recent else "-"


_COLUMNS = (
    Column("model", lambda model: model.name, 9, "left"),
    Column("kind", lambda model: model.kind, 1, "left"),
    Column("state", lambda model: model.state, 9, "left"),
    Column("for", lambda model: span(model.in_state_s), 2),
    Column("run", lambda model: str(model.running), 9),
    Column("wait", lambda model: str(model.waiting), 9),
    Column("req/s", _of_recent(lambda recent: _number(recent.requests_per_s)), 9),
    Column("tok/s", _of_recent(lambda recent: _number(recent.output_tokens_per_s)), 9),
    Column("p50 s", _of_recent(lambda recent: _percentiles(recent.duration_s)[0]), 9),
    Column("p95 s", _of_recent(lambda recent: _percentiles(recent.duration_s)[1]), 6),
    Column("ttft s", _of_recent(lambda recent: _percentiles(recent.ttft_s)[0]), 8),
    Column("cores", lambda model: _number(model.cpu_cores), 5),
    Column("GiB", lambda model: gib(model.memory_bytes), 7),
    Column("restarts", lambda model: str(model.restarts), 3),
)


def _note(model: ModelStatus) -> Text | None:
    """A line on a model that is not ready, has restarted, or failed requests."""
    problems = []
    if model.state not in TAKES_REQUESTS:
        problems.append(f"{model.state} for {span(model.in_state_s)}")
    if model.restarts:
        problems.append(f"restarted {model.restarts} time{'s' * (model.restarts != 1)}")
    if model.recent and model.recent.failed:
        problems.append(f"{model.recent.failed} of the last {model.recent.requests} requests failed")
    text = ": ".join(filter(None, (", ".join(problems), model.detail)))
    return Text.assemble((model.name, COLOURS.get(model.state, "")), "  ", text) if text else None


def _machine(hardware: Hardware) -> list[Text]:
    """A line on the host and one on each GPU: load, memory, power, owner, name."""
    total = hardware.memory_total_bytes
    rows = [
        ["host", _unit(_number(hardware.cpu_percent), "% CPU"), _memory(total - hardware.memory_available_bytes, total)]
    ]
    for gpu in hardware.gpus:
        load = "lost" if gpu.lost else _unit(_number(gpu.utilization_percent), "% busy")
        memory, power = _memory(gpu.memory_used_bytes, gpu.memory_total_bytes), _unit(_number(gpu.power_w), "W")
        owner = "shared" if gpu.shared else gpu.model or "-"
        rows.append([f"GPU {gpu.index}", load, memory, power, owner, gpu.name or "-"])
    widths = [max(map(len, cells)) for cells in zip_longest(*rows, fillvalue="")]
    lines = [Text("  ".join(map(str.ljust, row, widths)).rstrip(), "red" if row[1] == "lost" else "") for row in rows]
    if hardware.nvml_error:
        lines.append(Text(hardware.nvml_error, "dim"))
    for line in lines:
        line.no_wrap, line.overflow = True, "ellipsis"
    return lines


def _number(value: float | None) -> str:
    """The number with about three significant digits."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 or not value else f"{value:.2f}"


def _percentiles(seconds: Percentiles | None) -> tuple[str, str]:
    if seconds is None:
        return "-", "-"
    return _seconds(seconds.p50), _seconds(seconds.p95)


def _seconds(value: float) -> str:
    return f"{value:.{3 if value < 1 else 2 if value < 10 else 1}f}"


def _unit(number: str, unit: str) -> str:
    return number if number == "-" else f"{number} {unit}"


def _memory(used_bytes: int | None, total_bytes: int | None) -> str:
    return "-" if used_bytes is None else f"{gib(used_bytes)} of {gib(total_bytes)} GiB used"
