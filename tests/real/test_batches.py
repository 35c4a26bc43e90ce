"""The service with the real engine is killed within a batch, which goes on where it was."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

from tests.real.test_jobs import kill_all
from tests.support.batches import begin, client_at, ended, make_chat, results
from tests.support.process import served

MODEL = "SmolLM2-135M-Instruct"
LINES = [
    make_chat(f"line-{number}", f"Name {number} things at sea.", model=MODEL, max_tokens=24, seed=number)
    for number in range(1, 7)
]


def answered(folder: Path) -> dict[str, str]:
    with closing(sqlite3.connect(folder / "store.db")) as database:
        return dict(database.execute("SELECT custom_id, answer FROM redraft_batch_lines WHERE answer IS NOT NULL"))


async def test_a_batch_goes_on_after_its_service_was_killed(tmp_path: Path) -> None:
    settings = {"REDRAFT_STORE": str(tmp_path / "store.db"), "REDRAFT_MAX_BATCH_PROGRAMS": "1"}
    async with served(**settings) as (process, http), client_at(str(http.base_url)) as client:
        batch = await begin(client, LINES)
        while not answered(tmp_path):
            await asyncio.sleep(0.01)
        await kill_all(process.pid)
        await process.wait()
    known = answered(tmp_path)
    async with served(**settings) as (_, http), client_at(str(http.base_url)) as client:
        done = await ended(client, batch.id, seconds=60)
        found = await results(client, done.output_file_id)

    bodies = {answer["custom_id"]: answer["response"]["body"] for answer in found}
    print(f"{len(known)} of {len(LINES)} lines were answered before the kill")
    assert (done.status, list(bodies)) == ("completed", [line["custom_id"] for line in LINES])
    assert all(body["choices"][0]["message"]["content"] for body in bodies.values())
    assert len(known) < len(LINES)
    for line, answer in known.items():
        assert f'"id":"{bodies[line]["id"]}"' in answer
