"""What a running platform says of itself, as a table or as JSON."""

import json
import sys
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from clients import unreachable


def show(url: str, key: str | None, as_json: bool) -> int:
    """Print the platform's status; the exit status is 1 when nothing answers or a required model is not ready."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        response = httpx.get(f"{url}/status", headers=headers, timeout=10)
    except httpx.TransportError:
        return unreachable.report(url)
    if response.status_code != 200:
        print(f"{response.status_code}: {response.text}", file=sys.stderr)
        return 1
    document = response.json()
    if as_json:
        print(json.dumps(document, indent=2))
    else:
        console = Console()
        console.print(_table(document))
        for model in document["models"]:
            for path in model["paths"]:
                console.print(f"{document['address']}{path}  {model['name']}", soft_wrap=True, highlight=False)
    return 0 if all(model["state"] == "ready" for model in document["models"] if model["required"]) else 1


def _table(document: dict[str, Any]) -> Table:
    table = Table("model", "kind", "state", "running", "waiting", "memory", "restarts", "detail", box=None)
    for model in document["models"]:
        memory = "-" if model["memory_bytes"] is None else f"{model['memory_bytes'] / 1024**2:,.0f} MiB"
        detail = model["detail"] or f"for {model['in_state_s']:.0f} s"
        numbers = (str(model["running"]), str(model["waiting"]), memory, str(model["restarts"]))
        table.add_row(model["name"], model["kind"], model["state"], *numbers, detail)
    return table
