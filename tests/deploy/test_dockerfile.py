"""The Dockerfile, by hadolint. What it makes is in test_image."""

from pathlib import Path

import pytest

from tests.deploy.commands import ROOT, run, tool

pytestmark = pytest.mark.deploy


def test_hadolint_finds_nothing() -> None:
    assert run(tool("hadolint"), "--no-color", "Dockerfile") == ""


def test_hadolint_would_find_something(tmp_path: Path) -> None:
    loose = tmp_path / "Dockerfile"
    loose.write_text((ROOT / "Dockerfile").read_text().replace("USER 10001:10001", "USER root"))
    with pytest.raises(AssertionError, match="DL3002"):
        run(tool("hadolint"), "--no-color", loose)
