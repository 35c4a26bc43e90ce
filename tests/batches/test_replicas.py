"""Two services on one Postgres share the lines of a batch, and one is killed."""

from pathlib import Path

import pytest

from tests.batches.test_kills import REFINES, bodies, undisturbed
from tests.jobs.test_replicas import calls, replica, works
from tests.support.batches import client_at, ended, make_batch, results
from tests.support.postgres import make_database

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(240)]


async def test_two_replicas_share_the_lines_of_a_batch_and_one_is_killed(postgres: str, tmp_path: Path) -> None:
    expected, needed = await undisturbed(tmp_path / "undisturbed", REFINES)
    place = await make_database(postgres)
    async with replica(place, tmp_path, "killed") as (process, _), replica(place, tmp_path, "other") as (_, http):
        batch_id = await make_batch(place, "/v1/refine", REFINES)
        await works(tmp_path, "killed", "other", calls_each=10)
        process.kill()
        await process.wait()
        async with client_at(str(http.base_url)) as client:
            done = await ended(client, batch_id, seconds=60)
            found = await results(client, done.output_file_id)

    assert done.status == "completed"
    assert bodies(found) == expected
    assert set(calls(tmp_path, "killed", "other")) == set(needed)


async def test_no_line_is_worked_on_by_both(postgres: str, tmp_path: Path) -> None:
    place = await make_database(postgres)
    async with (
        replica(place, tmp_path, "one") as (_, http),
        replica(place, tmp_path, "two"),
        client_at(str(http.base_url)) as client,
    ):
        batch_id = await make_batch(place, "/v1/refine", REFINES)
        done = await ended(client, batch_id, seconds=60)
    one, two = set(calls(tmp_path, "one")), set(calls(tmp_path, "two"))

    assert done.status == "completed"
    assert one
    assert two
    assert one.isdisjoint(two)
