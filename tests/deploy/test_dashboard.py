"""The dashboard is what the code builds, fits the grid and shows every metric that Redraft has."""

import itertools
from collections import Counter

from prometheus_client.metrics import MetricWrapperBase

from deploy.grafana.build import text
from deploy.grafana.model import GRID_COLUMNS
from service.metrics import Metrics
from tests.deploy.monitoring import DASHBOARD, expressions, metrics, panels, rules, shown

Cell = tuple[int, int]


def test_the_file_is_what_the_code_builds() -> None:
    assert DASHBOARD.read_text() == text()


def test_panels_stay_inside_the_grid_and_apart() -> None:
    cells: Counter[Cell] = Counter()
    for panel in panels():
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= GRID_COLUMNS, panel["title"]
        columns, rows = range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])
        cells.update(itertools.product(columns, rows))
    assert [cell for cell, count in cells.items() if count > 1] == []


def test_panels_have_numbers_titles_and_descriptions_of_their_own() -> None:
    ids = [panel["id"] for panel in panels()]
    titles = [panel["title"] for panel in panels() if panel["type"] != "row"]
    assert len(set(ids)) == len(ids)
    assert len(set(titles)) == len(titles)
    assert [panel["title"] for panel in panels() if panel["type"] != "row" and not panel["description"]] == []


def test_series_that_stand_side_by_side_can_be_told_apart() -> None:
    for panel in panels():
        legends = [target["legendFormat"] for target in panel.get("targets", [])]
        assert len(set(legends)) == len(legends), panel["title"]
        assert panel["type"] != "timeseries" or "" not in legends, panel["title"]


def exposed() -> set[str]:
    """Every sample that Redraft's own metrics can have."""
    suffixes = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_sum", "_count"]}
    found = [value for value in vars(Metrics()).values() if isinstance(value, MetricWrapperBase)]
    families = [next(iter(metric.describe())) for metric in found]
    return {family.name + suffix for family in families for suffix in suffixes[family.type]}


def recorded() -> set[str]:
    return {rule["record"] for rule in rules() if "record" in rule}


def test_every_name_in_rules_and_dashboard_is_exposed_or_recorded() -> None:
    named = set().union(*map(metrics, expressions()))
    engines = {name for name in named if name.startswith(("vllm:", "process_"))}  # a real page has them: test_scrape.py
    assert named - engines - recorded() - exposed() == set()


def test_every_recorded_series_is_read_by_something() -> None:
    assert recorded() - set().union(*map(metrics, expressions())) == set()


def test_every_metric_is_on_the_dashboard_raw_or_recorded() -> None:
    seen = "\n".join(one.expr for one in shown())
    names = [value._name for value in vars(Metrics()).values() if isinstance(value, MetricWrapperBase)]
    assert [name for name in names if name not in seen] == []
