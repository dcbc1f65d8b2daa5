"""The dashboards are what their description says, what Grafana reads, and ask for series that exist."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.docker import queries, series

UNITS = {value for name, value in vars(units).items() if name[0].isupper() and isinstance(value, str)}


@pytest.fixture(params=queries.NAMES)
def dashboard(request: pytest.FixtureRequest) -> dict[str, Any]:
    return queries.load(request.param)


def test_the_files_are_what_the_description_says(tmp_path: Path) -> None:
    script = queries.DOCKER / "grafana" / "dashboards.py"
    subprocess.run([sys.executable, "-B", script, tmp_path], check=True, timeout=60)
    written = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    there = {path.name: path.read_text(encoding="utf-8") for path in queries.FOLDER.iterdir()}
    assert written == there, "run python docker/grafana/dashboards.py"


def test_grafanas_own_models_read_every_field(dashboard: dict[str, Any]) -> None:
    register_default_plugins()
    read = json.loads(JSONEncoder(sort_keys=True).encode(Dashboard.from_json(dashboard)))
    assert read == dashboard


def test_every_panel_says_what_it_shows_and_in_a_unit_that_grafana_has(dashboard: dict[str, Any]) -> None:
    for panel in queries.panels(dashboard):
        assert panel["description"].endswith("."), panel["title"]
        unit = panel["fieldConfig"]["defaults"].get("unit")
        assert panel["type"] == "state-timeline" or unit in UNITS or unit.startswith("suffix: "), panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "prometheus"}
        assert len({target["legendFormat"] for target in panel["targets"]}) == len(panel["targets"])


def test_panels_have_ids_of_their_own_and_do_not_overlap(dashboard: dict[str, Any]) -> None:
    headings = [panel for panel in dashboard["panels"] if panel["type"] == "row"]
    everything = [*headings, *queries.panels(dashboard)]
    assert len({panel["id"] for panel in everything}) == len(everything)
    places: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        taken = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not taken & places, panel["title"]
        assert max(x for x, _ in taken) < 24
        places |= taken


def test_queries_and_rules_ask_only_for_series_that_exist() -> None:
    recorded = series.recorded()
    asked = {query.expression: str(query) for query in queries.queries()}
    for name in queries.NAMES:
        asked |= {note["expr"]: note["name"] for note in queries.load(name)["annotations"]["list"]}
    asked |= {rule["expr"]: rule.get("alert") or rule["record"] for rule in series.rules()}
    wrong = {
        f"{where}: {name}"
        for expression, where in asked.items()
        for name in series.names_in(expression) - series.names() - recorded - {"up", "ALERTS"}
    }
    assert wrong == set()


def test_names_are_found_in_an_expression() -> None:
    expression = 'sum by (model) (rate(a_total{b="c"}[5m])) / on () group_left (d) x:y:z offset 1h > 2e3 or vector(1)'
    assert series.names_in(expression) == {"a_total", "x:y:z"}


def test_legends_name_only_labels_that_the_query_keeps() -> None:
    for query in queries.queries():
        kept = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", query.expression))))
        assert set(re.findall(r"{{(\w+)}}", query.legend)) <= kept, query


def test_the_models_to_choose_from_are_those_of_the_dashboards_engine() -> None:
    asked = {name: queries.load(name)["templating"]["list"][0]["query"]["query"] for name in queries.NAMES}
    assert asked == {
        "overview": "label_values(litport_model_info, model)",
        "llm": 'label_values(litport_model_info{engine="vllm"}, model)',
        "generic": 'label_values(litport_model_info{engine="litserve"}, model)',
        "hardware": "label_values(litport_model_info, model)",
    }


def test_the_dashboards_ask_the_provisioned_source() -> None:
    folder = queries.DOCKER / "grafana" / "provisioning"
    [source] = yaml.safe_load((folder / "datasources" / "prometheus.yml").read_text(encoding="utf-8"))["datasources"]
    assert (source["uid"], source["type"]) == ("prometheus", "prometheus")
    scraped = yaml.safe_load((queries.DOCKER / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    assert source["jsonData"]["timeInterval"] == scraped["global"]["scrape_interval"]
    [provider] = yaml.safe_load((folder / "dashboards" / "litport.yml").read_text(encoding="utf-8"))["providers"]
    assert provider["options"]["path"] == "/etc/grafana/dashboards"
