"""How panels, rows and dashboards look as Grafana's JSON, so that their descriptions say only what is shown.

A query is an expression and a legend. Whatever is the same everywhere (the data source, the place on the page, the
legend's form) is here and nowhere else. It knows no metric.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Json = dict[str, Any]
Query = tuple[str, str]

SOURCE = {"type": "prometheus", "uid": "prometheus"}
WIDTH = 24
# Colours of what is drawn in one colour on every dashboard.
GOOD, WARNING, BAD, QUIET, BUSY = "green", "orange", "red", "text", "blue"


def chart(
    title: str,
    says: str,
    unit: str,
    *queries: Query,
    width: int = 8,
    stacked: bool = False,
    least: float | None = 0,
    most: float | None = None,
    limit: float | None = None,
    objective: str | None = None,
    colours: Mapping[str, str] | None = None,
    repeated: bool = False,
) -> Json:
    """Lines over time, on an axis from `least` to `most`.

    `limit` draws a line at a number, `objective` one at a recorded series.
    `colours` are by regular expressions for legends. `repeated`: a panel for each model that is chosen.
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
    overrides = [_coloured(f"/{pattern}/", colour) for pattern, colour in (colours or {}).items()]
    if objective is not None:
        queries = (*queries, (objective, "objective"))
        dashed = {"id": "custom.lineStyle", "value": {"fill": "dash", "dash": [8, 8]}}
        overrides.append(_coloured("/^objective$/", BAD, dashed, {"id": "custom.fillOpacity", "value": 0}))
    options = {
        "legend": {"displayMode": "table", "placement": "bottom", "showLegend": True, "calcs": ["mean", "lastNotNull"]},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    again: Json = {"repeat": "model", "maxPerRow": 3} if repeated else {}
    return _panel("timeseries", title, says, queries, (width, 8), defaults, overrides, options) | again


def figure(
    title: str,
    says: str,
    unit: str,
    expression: str,
    *,
    width: int = 4,
    good: str = QUIET,
    limits: Sequence[tuple[float, str]] = (),
) -> Json:
    """One number, now. `limits` are the values from which on it has another colour than `good`."""
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
    return _panel("stat", title, says, [(expression, "")], (width, 4), defaults, [], options)


def states(title: str, says: str, *queries: Query, names: Mapping[int, tuple[str, str]], width: int = 24) -> Json:
    """Bars over time that change colour. `names` gives each value its word and colour."""
    words = {
        str(value): {"text": word, "color": colour, "index": place}
        for place, (value, (word, colour)) in enumerate(names.items())
    }
    defaults = {
        "mappings": [{"type": "value", "options": words}],
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
    return _panel("state-timeline", title, says, queries, (width, 6), defaults, [], options)


def row(title: str, *panels: Json, folded: bool = False) -> Json:
    """Panels under a heading. A folded row asks nothing until it is opened."""
    return {"type": "row", "title": title, "collapsed": folded, "panels": list(panels)}


def dashboard(uid: str, title: str, says: str, models: str | None, *rows: Json) -> Json:
    """A whole dashboard. `models` is the selector of the models to choose from; None: no choice."""
    return {
        "uid": uid,
        "title": title,
        "description": says,
        "tags": ["litport"],
        "timezone": "browser",
        "editable": True,
        "graphTooltip": 1,  # the same moment is marked in all panels
        "fiscalYearStartMonth": 0,
        "schemaVersion": 41,
        "time": {"from": "now-30m", "to": "now"},
        "refresh": "10s",
        "links": [_LINKS],
        "annotations": {"list": [_RESTARTS]},
        "templating": {"list": [_model_choice(models)] if models is not None else []},
        "panels": list(_placed(rows)),
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
    # `.*` also finds what has no model, such as a request that was refused before its model was known.
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
    says: str,
    queries: Iterable[Query],
    size: tuple[int, int],
    defaults: Json,
    overrides: list[Json],
    options: Json,
) -> Json:
    return {
        "type": kind,
        "title": title,
        "description": says,
        "transparent": False,
        "datasource": SOURCE,
        "gridPos": {"w": size[0], "h": size[1]},
        "repeatDirection": "h",
        "targets": [
            {"refId": chr(ord("A") + place), "expr": expression, "legendFormat": legend, "datasource": SOURCE}
            for place, (expression, legend) in enumerate(queries)
        ],
        "fieldConfig": {"defaults": defaults, "overrides": overrides},
        "options": options,
    }


def _thresholds(base: str, limits: Iterable[tuple[float, str]]) -> Json:
    steps = [{"value": value, "color": colour} for value, colour in ((None, base), *limits)]
    return {"mode": "absolute", "steps": steps}


def _coloured(pattern: str, colour: str, *properties: Json) -> Json:
    colour_property = {"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}
    return {"matcher": {"id": "byRegexp", "options": pattern}, "properties": [colour_property, *properties]}


def _placed(rows: Iterable[Json]) -> Iterable[Json]:
    """Rows and panels with their ids and places: panels from left to right, as many a line as fit."""
    number = y = 0
    for heading in rows:
        number += 1
        place = {"x": 0, "y": y, "w": WIDTH, "h": 1}
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
        folded = heading["collapsed"]
        yield heading | {"id": number - len(panels), "gridPos": place, "panels": panels if folded else []}
        if not folded:
            yield from panels
