"""What all tests share: an environment without settings, and the app over HTTP with the scripted engine."""

import os
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from service.engines.local import bundled
from tests.support.postgres import make_database, running_postgres
from tests.support.serving import Served, serving

settings.register_profile("untimed", deadline=None)  # timing never decides a test
settings.load_profile("untimed")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let reports pass from one process to another: what tests log may hold half a surrogate pair."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report


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
    """The same with jobs and stored traces."""
    async with serving(store=str(tmp_path / "jobs.db"), stored_traces=True) as served:
        yield served


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """The embedded model's tokenizer and chat template, from the package itself. Copy it to change it."""
    from transformers import AutoTokenizer

    file = bundled.packaged_file()
    return AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    with running_postgres() as url:
        yield url


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a database may be: SQLite, and Postgres in tests with the marker ``postgres``."""
    if request.param == "sqlite":
        return str(tmp_path / "store.db")
    return await make_database(request.getfixturevalue("postgres"))
