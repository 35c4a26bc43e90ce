"""What a keeper does with batches that it finds."""

import time
from pathlib import Path
from typing import Any

from service.batches.batch import Batch, Line
from service.batches.database import BatchDatabase
from service.batches.results import ResultFiles
from service.deliveries.database import DeliveryDatabase
from service.files.database import FileDatabase
from service.files.file import StoredFile
from service.files.store import FileWriter
from service.jobs.job import JobEvent, Progress
from service.programs.ids import make_id
from service.store.opening import open_database
from tests.support.batches import client_at, ended, json_lines, make_line, results
from tests.support.serving import serving

URL = "/v1/generate"


def make_batch(file: str = "file-none") -> Batch:
    return Batch(make_id("batch", "_"), "anonymous", URL, file, 86_400, 86_400, "request", created=time.time())


async def test_a_batch_whose_file_is_gone_fails(tmp_path: Path) -> None:
    place, batch = str(tmp_path / "store.db"), make_batch()
    database = open_database(place)
    await BatchDatabase(database, DeliveryDatabase(database), 15.0).add(batch)
    await database.close()
    async with serving(store=place) as served, client_at(str(served.client.base_url)) as client:
        found = await ended(client, batch.id)

    assert found.errors
    assert found.errors.data
    assert (found.status, found.errors.data[0].code, found.errors.data[0].param) == (
        "failed",
        "file_not_found",
        "input_file_id",
    )


async def test_a_check_that_was_cut_off_is_made_again(tmp_path: Path) -> None:
    place, now = str(tmp_path / "store.db"), time.time()
    database = open_database(place)
    store, files = BatchDatabase(database, DeliveryDatabase(database), 15.0), FileDatabase(database)
    writer = await FileWriter.begin(
        files, StoredFile(make_id("file"), "anonymous", "a.jsonl", "batch", now, now + 3_600)
    )
    await writer.write(json_lines([make_line(f"line-{number}", URL, {"prompt": "1"}) for number in range(120)]))
    batch = make_batch((await writer.finish()).id)
    await store.add(batch)
    claim = await store.claim("gone", 15.0)
    assert claim
    await store.add_lines(claim, [Line(1, "line-0", '{"prompt": "1"}')])
    await database.close()
    async with serving(store=place) as served, client_at(str(served.client.base_url)) as client:
        found = await ended(client, batch.id)
        answers = await results(client, found.output_file_id)

    assert [answer["custom_id"] for answer in answers] == [f"line-{number}" for number in range(120)]


async def test_results_that_were_cut_off_are_written_again(tmp_path: Path) -> None:
    place, batch = str(tmp_path / "store.db"), make_batch()
    database = open_database(place)
    store, files = BatchDatabase(database, DeliveryDatabase(database), 15.0), FileDatabase(database)
    await store.add(batch)
    claim = await store.claim("gone", 15.0)
    assert claim
    await store.add_lines(claim, [Line(number, f"line-{number}", "{}") for number in range(1, 61)])
    await store.begin(claim, None)
    while (line := await store.lines.claim("gone", 15.0)) is not None:
        await store.lines.finish(line, "completed", JobEvent(1, "done", answer_to(line.job.id)), Progress())
    claim = await store.claim("gone", 15.0)
    assert claim
    await store.begin_finalizing(claim)
    written = ResultFiles(batch, files)
    for result in await store.results(claim, 0, 25):
        await written.write(result)
    await database.close()
    async with serving(store=place) as served, client_at(str(served.client.base_url)) as client:
        found = await ended(client, batch.id)
        answers = await results(client, found.output_file_id)

    assert [answer["custom_id"] for answer in answers] == [f"line-{number}" for number in range(1, 61)]
    assert found.request_counts
    assert (found.status, found.request_counts.completed) == ("completed", 60)


def answer_to(job: str) -> dict[str, Any]:
    """An answer so long that a chunk has only some."""
    return {"status_code": 200, "request_id": "r", "body": {"id": job, "text": "a" * 20_000}}
