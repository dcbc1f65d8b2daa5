"""The dashboards as files, and the queries in them with Grafana's variables filled in, as Prometheus gets them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DOCKER = Path(__file__).parents[2] / "docker"
FOLDER = DOCKER / "grafana" / "dashboards"
NAMES = ("overview", "llm", "generic", "hardware")
VARIABLES = {"$__rate_interval": "2m", "$__interval": "5s", "$__range": "10m", "$model": ".*"}


@dataclass(frozen=True)
class Query:
    """One query of one panel; `title` is the dashboard's name and the panel's title."""

    title: str
    legend: str
    expression: str

    def __str__(self) -> str:
        return f"{self.title}: {self.legend or 'its number'}"


def load(name: str) -> dict[str, Any]:
    """The dashboard in a file."""
    document: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return document


def panels(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Its panels but the headings of rows; those of folded rows, too."""
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            yield from panel["panels"]
        else:
            yield panel


def queries() -> list[Query]:
    """Every query of every panel, filled in."""
    return [
        Query(f"{name}: {panel['title']}", target["legendFormat"], filled(target["expr"]))
        for name in NAMES
        for panel in panels(load(name))
        for target in panel["targets"]
    ]


def filled(expression: str) -> str:
    """The expression with every variable replaced."""
    for variable, value in VARIABLES.items():
        expression = expression.replace(variable, value)
    assert "$" not in expression, expression
    return expression
