"""Turns, where several processes serve the same callers."""

import asyncio
from functools import partial

import pytest
import sqlalchemy as sa

from service.jobs.turns import Turns, turns
from service.store.opening import open_database
from tests.support.orders import add_jobs, job_store, make_request
from tests.support.postgres import make_database


async def test_turns_are_counted_for_each_queue(place: str) -> None:
    database = open_database(place)
    try:
        jobs, lines = Turns(database, "jobs"), Turns(database, "lines")
        for name in ("ann", "ben", "ann"):
            database.run_now(partial(jobs.note, name=name))
        database.run_now(partial(lines.note, name="ann"))
        database.run_now(partial(jobs.drop, name="ben"))
        rows = database.run_now(lambda c: c.execute(sa.select(turns)).all())
    finally:
        await database.close()

    assert sorted(map(tuple, rows)) == [("jobs", "ann", 3), ("lines", "ann", 1)]


@pytest.mark.postgres
async def test_a_process_that_stops_in_the_middle_of_a_claim_holds_no_other_up(postgres: str) -> None:
    place = await make_database(postgres)
    async with job_store(place) as store:
        await add_jobs(store, [make_request(number) for number in range(3)])
        await store.claim("me", 15.0)
        paused = sa.create_engine(place.replace("postgresql://", "postgresql+psycopg://"))
        with paused.begin() as connection:
            connection.execute(sa.select(turns).with_for_update())
            async with asyncio.timeout(30):
                claim = await store.claim("other", 15.0)
        paused.dispose()

    assert claim is not None
