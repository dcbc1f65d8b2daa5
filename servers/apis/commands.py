"""`litport apis`: the APIs with a name, as a table. It reads sources and imports no API, so it is quick."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from servers.apis.registry import ENTRY_POINT_GROUP, describe


def print_apis(console: Console | None = None) -> None:
    """Print every named API with its input and output."""
    console = console or Console()
    table = Table("api", "what it does, takes and gives", "from", show_lines=True)
    table.columns[0].no_wrap = True
    for api in describe():
        description = f"{api.summary}\nin: {api.input or 'not declared'}\nout: {api.output or 'not declared'}"
        table.add_row(Text(api.name), Text(description), Text(api.origin))
    console.print(table)
    references = "./file.py:Class, package.module:Class or an entry point of"
    console.print(Text(f"Also any litserve.LitAPI, as {references} {ENTRY_POINT_GROUP}."))
