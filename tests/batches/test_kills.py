"""The whole service is killed at random moments, and a batch takes no notice."""

import asyncio
import random
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.jobs.test_kills import MOST_CALLS_BETWEEN_KILLS, SERVICE, calls
from tests.support.batches import begin, client_at, ended, make_batch, make_chat, results
from tests.support.orders import comparable, make_request
from tests.support.process import served

KILLS = 3
REFINES = [make_request(number) for number in range(10)]


def settings(folder: Path) -> dict[str, str]:
    return {
        "REDRAFT_ENGINE": "scripted",
        "REDRAFT_STORE": str(folder / "store.db"),
        "CALLS": str(folder / "calls"),
        "SECONDS_PER_CALL": "0.03",
    }


def rows(folder: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(folder / "store.db")) as database:
        return [row[0] for row in database.execute(query)]


def recorded(folder: Path) -> set[str]:
    return set(rows(folder, "SELECT key FROM redraft_batch_steps"))


def answered(folder: Path) -> dict[str, str]:
    """The answers that lines have so far."""
    with closing(sqlite3.connect(folder / "store.db")) as database:
        return dict(database.execute("SELECT custom_id, answer FROM redraft_batch_lines WHERE answer IS NOT NULL"))


async def undisturbed(folder: Path, requests: list[dict[str, Any]]) -> tuple[list[Any], list[str]]:
    """The results of a batch of refines in a service that nobody kills, and the calls that they took."""
    batch_id = await make_batch(str(folder / "store.db"), "/v1/refine", requests)
    async with served(SERVICE, **settings(folder)) as (_, http), client_at(str(http.base_url)) as client:
        batch = await ended(client, batch_id, seconds=60)
        return bodies(await results(client, batch.output_file_id)), calls(folder)


def bodies(answers: list[dict[str, Any]]) -> list[Any]:
    return [(answer["custom_id"], comparable(answer["response"]["body"])) for answer in answers]


@pytest.mark.timeout(240)
async def test_a_batch_whose_service_is_killed_ends_as_if_nothing_had_happened(tmp_path: Path) -> None:
    expected, needed = await undisturbed(tmp_path / "undisturbed", REFINES)
    folder = tmp_path / "killed"
    batch_id = await make_batch(str(folder / "store.db"), "/v1/refine", REFINES)
    done_again: list[str] = []
    known: dict[str, str] = {}
    for _ in range(KILLS):
        kept, done_before = recorded(folder), len(calls(folder))
        async with served(SERVICE, **settings(folder)) as (process, _):
            more = random.randint(1, MOST_CALLS_BETWEEN_KILLS)
            while len(calls(folder)) < done_before + more:
                await asyncio.sleep(0.002)
            process.kill()
            await process.wait()
        done_again += [call for call in calls(folder)[done_before:] if call in kept]
        known |= answered(folder)
    async with served(SERVICE, **settings(folder)) as (_, http), client_at(str(http.base_url)) as client:
        batch = await ended(client, batch_id, seconds=60)
        found = await results(client, batch.output_file_id)
        listed = (await http.get("/v1/jobs")).json()["jobs"]

    assert batch.status == "completed"
    assert bodies(found) == expected
    assert done_again == []
    assert set(calls(folder)) == set(needed)
    for answer in found:
        line = answer["custom_id"]
        if line in known:  # it was not answered again
            assert f'"id":"{answer["response"]["body"]["id"]}"' in known[line]
    assert recorded(folder) == set()
    assert rows(folder, "SELECT count(*) FROM redraft_batch_lines") == [0]
    assert listed == []


@pytest.mark.timeout(240)
async def test_no_line_that_was_answered_before_a_kill_is_asked_for_again(tmp_path: Path) -> None:
    lines = [make_chat(f"line-{number}", f"Describe wave {number}.", seed=number) for number in range(100)]
    async with served(SERVICE, **settings(tmp_path)) as (process, http), client_at(str(http.base_url)) as client:
        batch = await begin(client, lines)
        while len(calls(tmp_path)) < 40:
            await asyncio.sleep(0.002)
        process.kill()
        await process.wait()
    known = answered(tmp_path)
    done_before = len(calls(tmp_path))
    async with served(SERVICE, **settings(tmp_path)) as (_, http), client_at(str(http.base_url)) as client:
        done = await ended(client, batch.id, seconds=60)
        found = await results(client, done.output_file_id)

    assert known
    assert [answer["custom_id"] for answer in found] == [line["custom_id"] for line in lines]
    assert len(calls(tmp_path)) - done_before <= len(lines) - len(known)
    assert len(set(calls(tmp_path))) == len(lines)
