"""A value that the database does not take harms nobody but who wrote it."""

import asyncio
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DataError

from service.store.opening import open_database
from tests.support.postgres import make_database

names = sa.Table("names", sa.MetaData(), sa.Column("name", sa.String(8), primary_key=True))


def insert(name: str) -> Any:
    return lambda connection: connection.execute(names.insert(), {"name": name})


@pytest.mark.postgres
@pytest.mark.parametrize("refused", ["a\0b", "longer than the column"], ids=["by the driver", "by the server"])
async def test_writes_that_share_a_commit_with_a_refused_one_are_kept(postgres: str, refused: str) -> None:
    database = open_database(await make_database(postgres))
    database.run_now(names.create)
    writes = [database.write(insert(name)) for name in ("one", refused, "two")]
    outcomes = await asyncio.gather(*writes, return_exceptions=True)
    kept = await database.read(lambda c: c.execute(sa.select(names.c.name).order_by(names.c.name)).scalars().all())
    with pytest.raises(DataError):
        await database.read(lambda c: c.execute(sa.select(names).where(names.c.name == "a\0b")).all())
    await database.close()

    assert [isinstance(outcome, DataError) for outcome in outcomes] == [False, True, False]
    assert kept == ["one", "two"]
