"""What the hosting site runs and shows: the workflow, the issue forms, the updates of what is pinned."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.commands import ROOT, run, tool

GITHUB = ROOT / ".github"
WORKFLOW = GITHUB / "workflows/ci.yml"
SCHEMAS = {
    "workflows/ci.yml": "vendor.github-workflows",
    "dependabot.yml": "vendor.dependabot",
    "ISSUE_TEMPLATE/bug.yml": "vendor.github-issue-forms",
    "ISSUE_TEMPLATE/feature.yml": "vendor.github-issue-forms",
    "ISSUE_TEMPLATE/config.yml": "vendor.github-issue-config",
}


def jobs() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load(WORKFLOW.read_text())["jobs"]
    return found


def steps() -> list[dict[str, str]]:
    return [step for job in jobs().values() for step in job["steps"]]


def test_the_workflow_runs_the_targets_that_people_run() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = [step["run"].removeprefix("make ") for step in steps() if step.get("run", "").startswith("make ")]

    assert targets == ["check", "check-engines", "check-docs", "check-page", "check-deploy"]
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


def test_every_python_that_the_package_names_is_checked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))

    assert jobs()["check"]["strategy"]["matrix"]["python"] == named


def test_actions_are_pinned_to_a_commit_with_its_version() -> None:
    used = re.findall(r"uses: (.*)", WORKFLOW.read_text())

    assert len(used) == len([step for step in steps() if "uses" in step])
    assert [line for line in used if not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line)] == []


def test_every_file_has_a_schema() -> None:
    assert {str(path.relative_to(GITHUB)) for path in GITHUB.rglob("*.yml")} == SCHEMAS.keys()


@pytest.mark.deploy
@pytest.mark.parametrize("file", SCHEMAS)
def test_the_hosting_site_s_schema_accepts_it(file: str) -> None:
    run(tool("check-jsonschema"), f"--builtin-schema={SCHEMAS[file]}", GITHUB / file)


@pytest.mark.deploy
def test_the_workflow_s_schema_refuses_what_is_wrong(tmp_path: Path) -> None:
    wrong = tmp_path / "ci.yml"
    wrong.write_text(WORKFLOW.read_text().replace("runs-on:", "runs_on:"))

    with pytest.raises(AssertionError, match="runs_on"):
        run(tool("check-jsonschema"), f"--builtin-schema={SCHEMAS['workflows/ci.yml']}", wrong)
