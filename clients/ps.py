"""`litport ps`: which models of a running platform are in memory, since when they are idle, and which goes next."""

import httpx
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from clients import rejection, status, unreachable
from clients.documents import ModelStatus, read_status
from clients.figures import gib, span

_HEADINGS = ("model", "state", "for", "GiB", "idle", "loads", "start s", "")
# What a terminal of fewer columns than this leaves out.
_WIDE, _DETAILS = 70, ("for", "loads", "start s")


def show(url: str, key: str | None) -> int:
    """Print the table; the exit status is 1 when nothing answers."""
    try:
        response = status.fetch(url, key)
    except httpx.TransportError:
        return unreachable.report(url)
    if response.status_code != 200:
        return rejection.report(response.status_code, response.text)
    console = Console(highlight=False)
    rows = [dict(zip(_HEADINGS, _cells(model), strict=False)) for model in read_status(response.content).models]
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    headings = [heading for heading in _HEADINGS if console.width >= _WIDE or heading not in _DETAILS]
    for heading in headings:
        justify: JustifyMethod = "left" if heading in ("model", "state", "") else "right"
        # A long name goes on in the next line, and nothing else gives way.
        table.add_column(heading, justify=justify, no_wrap=heading != "model", overflow="fold")
    for row in rows:
        table.add_row(*(row.get(heading, "") for heading in headings))
    console.print(table)
    return 0


def _cells(model: ModelStatus) -> list[Text | str]:
    residence = model.residence
    state = Text(model.state, status.COLOURS.get(model.state, ""))
    cells: list[Text | str] = [model.name, state, span(model.in_state_s), gib(model.memory_bytes)]
    if residence is None:  # an earlier platform
        return cells
    idle = "-" if residence.idle_s is None else span(residence.idle_s)
    load_s = "-" if residence.load_s is None else f"{residence.load_s:.1f}"
    return [*cells, idle, str(residence.loads), load_s, "makes room next" if residence.next_out else ""]
