"""What Prometheus and Grafana are given, read from the files."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent.parent
PROMETHEUS = ROOT / "deploy" / "prometheus"
CONFIG = PROMETHEUS / "prometheus.yml"
RULES = PROMETHEUS / "rules" / "redraft.yml"
UNIT_TESTS = sorted((PROMETHEUS / "tests").glob("*.yml"))
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboards" / "redraft.json"
ALERTS = ROOT / "docs/operate/alerts.md"
METRICS = ROOT / "docs/reference/metrics.md"

METRIC = re.compile(r"\b(?:(?:[a-z_]+:)?(?:redraft_|vllm:)\w+(?::\w+)?|process_\w+)\b")
Rule = dict[str, Any]


@dataclass(frozen=True)
class Shown:
    """One expression of the dashboard."""

    panel: str
    expr: str

    def filled(self) -> str:
        """The expression as Grafana sends it, with nothing filtered out."""
        every = {"$instance": ".*", "$engine": ".*", "$__rate_interval": "1m"}
        return re.sub(r"\$\w+", lambda variable: every[variable[0]], self.expr)


def rules() -> list[Rule]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def alerts() -> list[Rule]:
    return [rule for rule in rules() if "alert" in rule]


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return found


def shown() -> list[Shown]:
    return [Shown(panel["title"], target["expr"]) for panel in panels() for target in panel.get("targets", [])]


def expressions() -> Iterator[str]:
    """Every expression of rules and dashboard."""
    yield from (rule["expr"] for rule in rules())
    yield from (one.expr for one in shown())


def metrics(text: str) -> set[str]:
    """The metrics that an expression or a document names."""
    return set(METRIC.findall(text))
