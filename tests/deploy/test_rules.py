"""Prometheus' own tool accepts what it is given, and every alert is shown to fire and to keep quiet."""

import re
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest
import yaml

from tests.deploy.monitoring import ALERTS, CONFIG, UNIT_TESTS, alerts, shown

deploy = pytest.mark.deploy


def promtool(*arguments: object) -> None:
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@deploy
def test_the_configuration_and_its_rules_are_valid() -> None:
    promtool("check", "config", CONFIG)


@deploy
@pytest.mark.parametrize("file", UNIT_TESTS, ids=lambda path: path.name)
def test_rules_do_what_their_unit_tests_say(file: Path) -> None:
    promtool("test", "rules", file)


@deploy
def test_expressions_of_the_dashboard_are_valid(tmp_path: Path) -> None:
    """A rule holds an expression, and promtool checks rules."""
    checked = [{"record": f"expression:{number}", "expr": one.filled()} for number, one in enumerate(shown())]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": checked}]}))
    promtool("check", "rules", file)


def test_every_alert_has_a_unit_test_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    shown: defaultdict[tuple[str, str], set[bool]] = defaultdict(set)
    severities = defaultdict(set)
    for rule in alerts():
        severities[rule["alert"]].add(rule["labels"]["severity"])
    for file in UNIT_TESTS:
        tests = yaml.safe_load(file.read_text())["tests"]
        for case in (case for test in tests for case in test["alert_rule_test"]):
            firing = {alert["exp_labels"]["severity"] for alert in case["exp_alerts"]}
            for severity in severities[case["alertname"]]:
                shown[case["alertname"], severity].add(severity in firing)
    assert {alert for alert, seen in shown.items() if seen == {True, False}} == {
        (rule["alert"], rule["labels"]["severity"]) for rule in alerts()
    }


def test_every_alert_says_what_it_is_and_where_its_runbook_stands() -> None:
    for rule in alerts():
        assert rule["labels"]["severity"] in ("critical", "warning"), rule["alert"]
        assert set(rule["annotations"]) == {"summary", "description", "runbook"}, rule["alert"]
        path, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert path == f"docs/operate/{ALERTS.name}"
        assert anchor == rule["alert"].lower()


def test_every_alert_has_its_runbook_and_every_runbook_its_alert() -> None:
    sections = re.findall(r"^## (Redraft\w+)$", ALERTS.read_text(), re.MULTILINE)
    assert sorted(sections) == sorted({rule["alert"] for rule in alerts()})
    for section in re.split(r"^## (?=Redraft)", ALERTS.read_text(), flags=re.MULTILINE)[1:]:
        assert all(f"*{part}.*" in section for part in ("Means", "Look", "Do")), section.split("\n")[0]


def test_the_documented_severities_and_delays_are_those_of_the_rules() -> None:
    rows = re.findall(r"^\| \[(Redraft\w+)\].* \| (\w+) \| .* \| ([\w ]+) \|$", ALERTS.read_text(), re.MULTILINE)
    stated = [(rule["alert"], rule["labels"]["severity"], rule.get("for", "at once")) for rule in alerts()]
    assert sorted(rows) == sorted(stated)
