"""What all tests share: an environment without settings, and the app over HTTP with the scripted engine."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.serving import Served, serving

settings.register_profile("untimed", deadline=None)  # timing never decides a test
settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().startswith("REDRAFT_"):
            monkeypatch.delenv(name)


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serving() as served:
        yield served


@pytest.fixture
async def working(tmp_path: Path) -> AsyncIterator[Served]:
    """The same with jobs."""
    async with serving(jobs=str(tmp_path / "jobs.db")) as served:
        yield served
