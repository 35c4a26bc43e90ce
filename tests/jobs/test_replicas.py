"""Two services on one Postgres: one is killed, or paused and woken."""

import asyncio
import os
import signal
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import psycopg
import pytest

from tests.jobs.test_kills import results, undisturbed
from tests.support.orders import make_request, make_store
from tests.support.postgres import make_database
from tests.support.process import served

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(240)]

SERVICE = "tests.support.counted_service"
REQUESTS = [make_request(number) for number in range(10)]


@asynccontextmanager
async def replica(place: str, folder: Path, name: str) -> AsyncIterator[tuple[Process, httpx.AsyncClient]]:
    settings = {
        "REDRAFT_ENGINE": "scripted",
        "REDRAFT_STORE": place,
        "REDRAFT_MAX_JOBS": "4",
        "REDRAFT_MAX_BATCH_PROGRAMS": "4",
        "REDRAFT_JOB_LEASE_SECONDS": "5",
        "CALLS": str(folder / name),
        "SECONDS_PER_CALL": "0.1",
    }
    async with served(SERVICE, **settings) as (process, client):
        yield process, client


def calls(folder: Path, *names: str) -> list[str]:
    return [line for name in names if (folder / name).exists() for line in (folder / name).read_text().splitlines()]


def recorded(place: str) -> set[str]:
    with psycopg.connect(place) as connection:
        return {key for (key,) in connection.execute("SELECT key FROM redraft_job_steps")}


def owned(place: str) -> dict[str, tuple[str, int]]:
    """Which process works on which job, and in which attempt."""
    with psycopg.connect(place) as connection:
        found = connection.execute("SELECT id, owner, attempt FROM redraft_jobs WHERE state = 'running'")
        return {job: (owner, attempt) for job, owner, attempt in found}


async def works(folder: Path, *names: str, calls_each: int) -> None:
    """Return once each of the replicas has ended that many calls."""
    async with asyncio.timeout(30):
        while any(len(calls(folder, name)) < calls_each for name in names):
            await asyncio.sleep(0.01)


async def test_the_jobs_of_a_replica_that_is_killed_go_on_at_the_other(postgres: str, tmp_path: Path) -> None:
    expected, needed = await undisturbed(tmp_path / "undisturbed", REQUESTS)
    place = await make_database(postgres)
    async with replica(place, tmp_path, "killed") as (first, _), replica(place, tmp_path, "other") as (_, client):
        ids = await make_store(place, REQUESTS)
        await works(tmp_path, "killed", "other", calls_each=20)
        first.kill()
        await first.wait()
        kept = recorded(place)
        left = {job for job, (owner, _) in owned(place).items() if f":{first.pid}:" in owner}
        done_before = calls(tmp_path, "other")
        async with asyncio.timeout(30):
            while left & {job for job, (owner, _) in owned(place).items() if f":{first.pid}:" in owner}:
                await asyncio.sleep(0.1)
        found = await results(client, ids)

    assert left
    assert found == expected
    assert set(calls(tmp_path, "killed", "other")) == set(needed)
    theirs = set(calls(tmp_path, "killed")) & kept
    assert theirs.isdisjoint(calls(tmp_path, "other")[len(done_before) :])


async def test_a_replica_that_was_paused_does_not_write_to_the_jobs_that_it_has_lost(
    postgres: str, tmp_path: Path
) -> None:
    expected, needed = await undisturbed(tmp_path / "undisturbed", REQUESTS)
    place = await make_database(postgres)
    async with replica(place, tmp_path, "paused") as (first, _), replica(place, tmp_path, "other") as (_, client):
        ids = await make_store(place, REQUESTS)
        await works(tmp_path, "paused", "other", calls_each=20)
        os.kill(first.pid, signal.SIGSTOP)
        try:
            lost = {job: attempt for job, (owner, attempt) in owned(place).items() if f":{first.pid}:" in owner}
            done_before = len(calls(tmp_path, "paused"))
            async with asyncio.timeout(30):
                while any(f":{first.pid}:" in owner for owner, _ in owned(place).values()):
                    await asyncio.sleep(0.1)
        finally:
            os.kill(first.pid, signal.SIGCONT)  # else its end would be waited for in vain
        found = await results(client, ids)
        asked_after = calls(tmp_path, "paused")[done_before:]

    assert lost
    assert found == expected
    # The calls that were in flight end in vain. None that they would have led to is made.
    assert len(asked_after) <= 4 * 8
    assert set(calls(tmp_path, "paused", "other")) == set(needed)
