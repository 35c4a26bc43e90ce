"""A store on which nobody works, on SQLite; tests with the marker ``postgres`` also have one on Postgres."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from service.jobs.opening import open_store
from service.jobs.store import Store
from tests.support.postgres import make_database, running_postgres


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    with running_postgres() as url:
        yield url


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a store may be."""
    if request.param == "sqlite":
        return str(tmp_path / "jobs.db")
    return await make_database(request.getfixturevalue("postgres"))


@pytest.fixture
async def store(place: str) -> AsyncIterator[Store]:
    opened = open_store(place, lease=15.0)
    yield opened
    await opened.close()
