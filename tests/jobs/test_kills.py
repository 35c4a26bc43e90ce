"""The whole service is killed at random moments, and no job takes notice."""

import asyncio
import random
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.orders import comparable, make_request, make_store
from tests.support.process import served

JOBS = 12
KILLS = 4
MOST_CALLS_BETWEEN_KILLS = 80  # all kills come before the last job has ended
SERVICE = "tests.support.counted_service"


def settings(folder: Path) -> dict[str, str]:
    return {
        "REDRAFT_ENGINE": "scripted",
        "REDRAFT_STORE": str(folder / "jobs.db"),
        "CALLS": str(folder / "calls"),
        "SECONDS_PER_CALL": "0.03",
    }


async def results(client: httpx.AsyncClient, ids: list[str]) -> list[dict[str, Any]]:
    """The results of all jobs, once they have ended."""
    found = []
    for job in ids:
        while (body := (await client.get(f"/v1/jobs/{job}")).json())["finished_at"] is None:
            await asyncio.sleep(0.05)
        assert body["state"] == "completed", body["error"]
        found.append(comparable(body["result"]))
    return found


async def events(client: httpx.AsyncClient, job: str) -> list[tuple[int, str]]:
    """The ids and the texts of all events of a job that has ended."""
    text = (await client.get(f"/v1/jobs/{job}/events")).text
    pieces = [piece.split("\n") for piece in text.split("\n\n") if piece.startswith("id: ")]
    return [(int(piece[0].removeprefix("id: ")), "\n".join(piece[1:])) for piece in pieces]


def recorded(folder: Path) -> set[str]:
    """The keys of the steps that are recorded of the jobs that have not ended. Each is of one call."""
    with closing(sqlite3.connect(folder / "jobs.db")) as database:
        return {key for (key,) in database.execute("SELECT key FROM redraft_job_steps")}


def calls(folder: Path) -> list[str]:
    path = folder / "calls"
    return path.read_text().splitlines() if path.exists() else []


async def undisturbed(folder: Path, requests: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[str]]:
    """The results of the requests in a service that nobody kills, and the calls that they took."""
    ids = await make_store(folder / "jobs.db", requests)
    async with served(SERVICE, **settings(folder)) as (_, client):
        return await results(client, ids), calls(folder)


@pytest.mark.timeout(240)
async def test_jobs_whose_service_is_killed_end_as_if_nothing_had_happened(tmp_path: Path) -> None:
    requests = [make_request(number) for number in range(JOBS)]
    expected, needed = await undisturbed(tmp_path / "undisturbed", requests)
    folder = tmp_path / "killed"
    ids = await make_store(folder / "jobs.db", requests)

    done_again = []
    for _ in range(KILLS):
        done_before = len(calls(folder))
        kept = recorded(folder)
        async with served(SERVICE, **settings(folder)) as (process, _):
            more = random.randint(1, MOST_CALLS_BETWEEN_KILLS)
            while len(calls(folder)) < done_before + more:
                await asyncio.sleep(0.002)
            process.kill()
            await process.wait()
        done_again += [call for call in calls(folder)[done_before:] if call in kept]
    kept = recorded(folder)
    done_before = len(calls(folder))
    async with served(SERVICE, **settings(folder)) as (_, client):
        found = await results(client, ids)
        told = [await events(client, job) for job in ids]
    done_again += [call for call in calls(folder)[done_before:] if call in kept]

    assert found == expected
    assert kept  # the last kill cut jobs off
    assert done_again == []
    assert set(calls(folder)) == set(needed)
    lost = Counter(calls(folder)) - Counter(needed)  # had ended, but were not recorded when the service was killed
    print(f"{len(needed)} calls, {lost.total()} of them made twice in {KILLS} kills")
    for job in told:
        assert [number for number, _ in job] == list(range(1, len(job) + 1))
        assert len({text for _, text in job}) == len(job)
