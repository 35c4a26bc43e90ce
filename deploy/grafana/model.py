"""Panels as values, and Grafana's JSON model of a dashboard of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

GRID_COLUMNS = 24
SCHEMA_VERSION = 39
"""Of Grafana's JSON model; a newer Grafana migrates it when it loads it."""
PROMETHEUS = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True)
class Query:
    """``legend`` names each series by its labels, such as ``{{role}}``. ``dashed``: a threshold, not a measurement."""

    expr: str
    legend: str
    dashed: bool = False


@dataclass(frozen=True)
class Panel:
    """``unit``: Grafana's name of it. ``width`` is of GRID_COLUMNS, ``height`` in grid rows of 30 pixels.

    ``red_above``: from where on a stat is red.
    """

    title: str
    description: str
    queries: Sequence[Query]
    unit: str = "short"
    kind: Literal["timeseries", "stat"] = "timeseries"
    width: int = 8
    height: int = 8
    stacked: bool = False
    most: float | None = None
    red_above: float | None = None


@dataclass(frozen=True)
class Row:
    title: str
    panels: Sequence[Panel]


def dashboard(rows: Sequence[Row]) -> dict[str, Any]:
    """Grafana's JSON model."""
    return {
        "uid": "redraft",
        "title": "Redraft",
        "tags": ["redraft"],
        "schemaVersion": SCHEMA_VERSION,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {
            "list": [
                {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
                choice("instance", "Replica", "label_values(redraft_state, instance)"),
                choice("engine", "Engine", "label_values(vllm:num_requests_running, instance)"),
            ]
        },
        "panels": [{"id": number, **panel} for number, panel in enumerate(placed(rows), 1)],
    }


def choice(name: str, label: str, query: str) -> dict[str, Any]:
    """A variable of which any number of values may be picked, by default all."""
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": PROMETHEUS,
        "query": {"query": query, "refId": name},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def placed(rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    """The panels from left to right and from top to bottom, each row under its title."""
    y = 0
    for row in rows:
        yield {
            "type": "row",
            "title": row.title,
            "collapsed": False,
            "panels": [],
            "gridPos": box(0, y, GRID_COLUMNS, 1),
        }
        y += 1
        x = 0
        for panel in row.panels:
            if x + panel.width > GRID_COLUMNS:
                x, y = 0, y + panel.height
            yield {**model(panel), "gridPos": box(x, y, panel.width, panel.height)}
            x += panel.width
        y += row.panels[-1].height


def box(x: int, y: int, width: int, height: int) -> dict[str, int]:
    return {"x": x, "y": y, "w": width, "h": height}


def model(panel: Panel) -> dict[str, Any]:
    names = [chr(ord("A") + index) for index in range(len(panel.queries))]
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0}
    if panel.most is not None:
        defaults["max"] = panel.most
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": PROMETHEUS,
        "targets": [
            {"refId": name, "datasource": PROMETHEUS, "expr": query.expr, "legendFormat": query.legend, "range": True}
            for name, query in zip(names, panel.queries, strict=True)
        ],
        "fieldConfig": {
            "defaults": defaults | (lines(panel) if panel.kind == "timeseries" else number(panel)),
            "overrides": [dashes(name) for name, query in zip(names, panel.queries, strict=True) if query.dashed],
        },
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
        if panel.kind == "timeseries"
        else {
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "colorMode": "value",
            "graphMode": "area",
        },
    }


def lines(panel: Panel) -> dict[str, Any]:
    return {
        "color": {"mode": "palette-classic"},
        "custom": {
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 30 if panel.stacked else 5,
            "showPoints": "auto",
            "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
        },
    }


def number(panel: Panel) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.red_above is not None:
        steps.append({"color": "red", "value": panel.red_above})
    return {"color": {"mode": "thresholds"}, "thresholds": {"mode": "absolute", "steps": steps}}


def dashes(name: str) -> dict[str, Any]:
    return {
        "matcher": {"id": "byFrameRefID", "options": name},
        "properties": [
            {"id": "custom.lineStyle", "value": {"fill": "dash", "dash": [6, 4]}},
            {"id": "custom.fillOpacity", "value": 0},
        ],
    }
