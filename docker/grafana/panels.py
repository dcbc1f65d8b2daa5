"""Panels, rows and dashboards as Grafana's JSON.

A query is an expression and a legend. This module holds what all panels share (the data source, the position on the
page, the form of the legend); the metrics are in the modules of the dashboards.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Json = dict[str, Any]
Query = tuple[str, str]

SOURCE = {"type": "prometheus", "uid": "prometheus"}
WIDTH = 24
# A meaning has the same colour on every dashboard.
GOOD, WARNING, BAD, QUIET, BUSY = "green", "orange", "red", "text", "blue"


def chart(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    width: int = 8,
    stacked: bool = False,
    least: float | None = 0,
    most: float | None = None,
    limit: float | None = None,
    objective: str | None = None,
    colours: Mapping[str, str] | None = None,
    per_model: bool = False,
) -> Json:
    """Lines over time, on an axis from `least` to `most`.

    `limit` draws a line at a number, `objective` one at a recorded series. `colours` maps regular expressions for
    legends to colours. `per_model` makes a panel for each model that the reader has chosen.
    """
    style: Json = {"lineWidth": 1, "fillOpacity": 10, "showPoints": "never"}
    if stacked:
        style |= {"fillOpacity": 60, "lineWidth": 0, "stacking": {"mode": "normal", "group": "A"}}
    defaults: Json = {"unit": unit, "color": {"mode": "palette-classic"}, "custom": style}
    if least is not None:
        defaults["min"] = least
    if most is not None:
        defaults["max"] = most
    if limit is not None:
        style["thresholdsStyle"] = {"mode": "dashed"}
        defaults["thresholds"] = _thresholds("transparent", [(limit, BAD)])
    overrides = [_colour_override(f"/{pattern}/", colour) for pattern, colour in (colours or {}).items()]
    if objective is not None:
        queries = (*queries, (objective, "objective"))
        dash = {"id": "custom.lineStyle", "value": {"fill": "dash", "dash": [8, 8]}}
        overrides.append(_colour_override("/^objective$/", BAD, dash, {"id": "custom.fillOpacity", "value": 0}))
    options = {
        "legend": {"displayMode": "table", "placement": "bottom", "showLegend": True, "calcs": ["mean", "lastNotNull"]},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    repeat: Json = {"repeat": "model", "maxPerRow": 3} if per_model else {}
    return _panel("timeseries", title, description, queries, (width, 8), defaults, overrides, options) | repeat


def figure(
    title: str,
    description: str,
    unit: str,
    expression: str,
    *,
    width: int = 4,
    good: str = QUIET,
    limits: Sequence[tuple[float, str]] = (),
) -> Json:
    """One number, at this moment. `limits` are the values from which it has another colour than `good`."""
    defaults = {"unit": unit, "noValue": "none", "thresholds": _thresholds(good, limits)}
    options = {
        "reduceOptions": {"calcs": ["lastNotNull"], "values": False},
        "colorMode": "value",
        "graphMode": "area",
        "justifyMode": "auto",
        "textMode": "auto",
        "orientation": "auto",
        "wideLayout": True,
        "showPercentChange": False,
        "percentChangeColorMode": "standard",
    }
    return _panel("stat", title, description, [(expression, "")], (width, 4), defaults, [], options)


def states(
    title: str, description: str, *queries: Query, names: Mapping[int, tuple[str, str]], width: int = 24
) -> Json:
    """Bars over time that change colour. `names` maps each value to its text and colour."""
    texts = {
        str(value): {"text": text, "color": colour, "index": index}
        for index, (value, (text, colour)) in enumerate(names.items())
    }
    defaults = {
        "mappings": [{"type": "value", "options": texts}],
        "color": {"mode": "thresholds"},
        "thresholds": _thresholds(QUIET, []),
        "custom": {"lineWidth": 0, "fillOpacity": 80},
    }
    options = {
        "showValue": "auto",
        "rowHeight": 0.9,
        "perPage": 20,
        "mergeValues": True,
        "alignValue": "left",
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": False, "calcs": []},
        "tooltip": {"mode": "single", "sort": "none"},
    }
    return _panel("state-timeline", title, description, queries, (width, 6), defaults, [], options)


def row(title: str, *panels: Json, is_collapsed: bool = False) -> Json:
    """Panels under a heading. A collapsed row makes no queries until it is opened."""
    return {"type": "row", "title": title, "collapsed": is_collapsed, "panels": list(panels)}


def dashboard(uid: str, title: str, description: str, models: str | None, *rows: Json) -> Json:
    """A dashboard. `models` is the selector of the models to choose from; None: no choice."""
    return {
        "uid": uid,
        "title": title,
        "description": description,
        "tags": ["litport"],
        "timezone": "browser",
        "editable": True,
        "graphTooltip": 1,  # marks the same moment in all panels
        "fiscalYearStartMonth": 0,
        "schemaVersion": 41,
        "time": {"from": "now-30m", "to": "now"},
        "refresh": "10s",
        "links": [_LINKS],
        "annotations": {"list": [_RESTARTS]},
        "templating": {"list": [_model_choice(models)] if models is not None else []},
        "panels": list(_layout(rows)),
    }


_LINKS = {
    "title": "Litport",
    "type": "dashboards",
    "icon": "external link",
    "tooltip": "",
    "tags": ["litport"],
    "asDropdown": False,
    "targetBlank": False,
    "includeVars": False,
    "keepTime": True,
}
_RESTARTS = {
    "name": "Restarts of models",
    "datasource": SOURCE,
    "enable": True,
    "hide": False,
    "iconColor": BAD,
    "builtIn": 0,
    "expr": "sum by (model) (changes(litport_model_restarts_total[1m])) > 0",
}


def _model_choice(models: str) -> Json:
    # `.*` also matches series without a model, such as a request that was rejected before its model was known.
    query = f"label_values(litport_model_info{models}, model)"
    return {
        "type": "query",
        "name": "model",
        "label": "Model",
        "datasource": SOURCE,
        "query": {"query": query, "refId": "models"},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "skipUrlSync": False,
        "allowCustomValue": True,
        "auto": False,
        "auto_min": "10s",
        "auto_count": 30,
    } | ({} if models else {"allValue": ".*"})


def _panel(
    kind: str,
    title: str,
    description: str,
    queries: Iterable[Query],
    size: tuple[int, int],
    defaults: Json,
    overrides: list[Json],
    options: Json,
) -> Json:
    return {
        "type": kind,
        "title": title,
        "description": description,
        "transparent": False,
        "datasource": SOURCE,
        "gridPos": {"w": size[0], "h": size[1]},
        "repeatDirection": "h",
        "targets": [
            {"refId": chr(ord("A") + index), "expr": expression, "legendFormat": legend, "datasource": SOURCE}
            for index, (expression, legend) in enumerate(queries)
        ],
        "fieldConfig": {"defaults": defaults, "overrides": overrides},
        "options": options,
    }


def _thresholds(base: str, limits: Iterable[tuple[float, str]]) -> Json:
    steps = [{"value": value, "color": colour} for value, colour in ((None, base), *limits)]
    return {"mode": "absolute", "steps": steps}


def _colour_override(pattern: str, colour: str, *properties: Json) -> Json:
    colour_property = {"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}
    return {"matcher": {"id": "byRegexp", "options": pattern}, "properties": [colour_property, *properties]}


def _layout(rows: Iterable[Json]) -> Iterable[Json]:
    """Rows and panels with their ids and positions: panels from left to right, as many as fit into a line."""
    number = y = 0
    for heading in rows:
        number += 1
        position = {"x": 0, "y": y, "w": WIDTH, "h": 1}
        y += 1
        panels = []
        x = height = 0
        for panel in heading["panels"]:
            number += 1
            size = panel["gridPos"]
            if x + size["w"] > WIDTH:
                x, y, height = 0, y + height, 0
            panels.append(panel | {"id": number, "gridPos": {"x": x, "y": y, **size}})
            x, height = x + size["w"], max(height, size["h"])
        y += height
        is_collapsed = heading["collapsed"]
        yield heading | {"id": number - len(panels), "gridPos": position, "panels": panels if is_collapsed else []}
        if not is_collapsed:
            yield from panels
