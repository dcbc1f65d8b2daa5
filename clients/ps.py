"""`litport ps`: which models of a running platform are in memory, since when they are idle, and which goes next."""

from collections.abc import Callable

import httpx
from rich.console import Console, RenderableType

from clients import rejection, unreachable
from clients.documents import ModelStatus, Status, read_status
from clients.figures import gib, span
from clients.model_table import Column, fit
from clients.residence import Residence
from clients.status import fetch


def show(url: str, key: str | None) -> int:
    """Print the table; the exit status is 1 when nothing answers."""
    try:
        response = fetch(url, key)
    except httpx.TransportError:
        return unreachable.report(url)
    if response.status_code != 200:
        return rejection.report(response.status_code, response.text)
    console = Console(highlight=False)
    console.print(view(read_status(response.content), console))
    return 0


def view(status: Status, console: Console) -> RenderableType:
    """The models as a table, as wide as the console."""
    columns = [
        column for column in _COLUMNS if column not in _RARE or any(column.format(model) for model in status.models)
    ]
    return fit(status.models, columns, console)


def _replicas(model: ModelStatus) -> str:
    """How many are ready, and of how many; "" for a model of one process tree."""
    count = model.target_replicas or len(model.instances)
    if count == 1 and model.target_replicas is None:
        return ""
    return f"{sum(instance.state == 'ready' for instance in model.instances)}/{count}"


def _version(model: ModelStatus) -> str:
    """The version that serves, and those beside it."""
    others = [
        f"{other.version} {other.percent} %" if other.percent is not None else f"{other.version} {other.role}"
        for other in model.others
    ]
    return (model.version or "-") + (f" ({', '.join(others)})" if others else "")


def _of_residence(heading: str, text: Callable[[Residence], str], priority: int) -> Column:
    # An earlier platform has none.
    return Column(heading, lambda model: text(model.residence) if model.residence else "", priority)


_REPLICAS = Column("replicas", _replicas, 6)
_WAKE = _of_residence("wake s", lambda residence: "" if residence.wake_s is None else f"{residence.wake_s:.1f}", 4)
# They have a place only where a model has something to say there.
_RARE = (_REPLICAS, _WAKE)
_COLUMNS = (
    Column("model", lambda model: model.name, 9, "left"),
    Column("state", lambda model: model.state, 9, "left"),
    _REPLICAS,
    Column("version", _version, 2, "left"),
    Column("for", lambda model: span(model.in_state_s), 2),
    Column("GiB", lambda model: gib(model.memory_bytes), 7),
    _of_residence("idle", lambda residence: "-" if residence.idle_s is None else span(residence.idle_s), 8),
    _of_residence("loads", lambda residence: str(residence.loads), 3),
    _of_residence("start s", lambda residence: "-" if residence.load_s is None else f"{residence.load_s:.1f}", 4),
    _WAKE,
    _of_residence("", lambda residence: "makes room next" if residence.next_out else "", 9)._replace(justify="left"),
)
