"""The service with the real engine is killed, its engine ends with it, and its jobs and its batch take no notice."""

import asyncio
import json
import random
import sqlite3
from asyncio.subprocess import Process
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from openai import AsyncOpenAI
from openai.types.responses import Response

from tests.jobs.test_kills import calls, recorded, results
from tests.support import batches
from tests.support.orders import make_request, make_store
from tests.support.process import served

CALLS_BEFORE_THE_KILL = (8, 20)
SERVICE = "tests.support.counted_service"
MODEL = "SmolLM2-135M-Instruct"
ALONE = {"max_num_seqs": 1, "enable_prefix_caching": False}
LINES = [
    batches.make_chat(f"line-{number}", f"Name {number} things at sea.", model=MODEL, max_tokens=24, seed=number)
    for number in range(1, 7)
]
RESPONSE: dict[str, Any] = {
    "model": f"{MODEL}:beam",
    "input": "Write one sentence about the sea.",
    "background": True,
    "extra_body": {
        "redraft": {"evaluators": [{"type": "length", "unit": "words", "max": 20}], "search": {"rounds": 2}}
    },
}


@asynccontextmanager
async def at_work(folder: Path) -> AsyncGenerator[tuple[Process, httpx.AsyncClient, AsyncOpenAI]]:
    """The process and its clients. One job and one line at a time, and an engine that computes each call alone.

    The calls that are made again after a kill share their steps with others than before it, and its rounding would
    otherwise change their last digits.
    """
    settings = {
        "REDRAFT_STORE": str(folder / "jobs.db"),
        "CALLS": str(folder / "calls"),
        "REDRAFT_ENGINE_ARGS": json.dumps(ALONE),
        "REDRAFT_MAX_JOBS": "1",
        "REDRAFT_MAX_BATCH_PROGRAMS": "1",
    }
    async with served(SERVICE, **settings) as (process, http), batches.client_at(str(http.base_url)) as client:
        yield process, http, client


async def kill(process: Process) -> None:
    """Kill the service, and wait until the engine's processes have followed."""
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    await process.wait()
    _, alive = await asyncio.to_thread(psutil.wait_procs, children, timeout=60)
    assert alive == []


def answered(folder: Path) -> dict[str, str]:
    """The answers to lines of the batch, by their ``custom_id``."""
    with closing(sqlite3.connect(folder / "jobs.db")) as database:
        return dict(database.execute("SELECT custom_id, answer FROM redraft_batch_lines WHERE answer IS NOT NULL"))


async def ended(client: AsyncOpenAI, response: Response) -> Response:
    while response.status in ("queued", "in_progress"):
        await asyncio.sleep(0.1)
        response = await client.responses.retrieve(response.id)
    return response


@pytest.mark.thorough
@pytest.mark.timeout(600)
async def test_work_whose_service_is_killed_ends_as_if_nothing_had_happened(tmp_path: Path) -> None:
    """The same job twice, a batch and a response: the kill disturbs the first job and the batch."""
    request = make_request(0)
    ids = await make_store(tmp_path / "jobs.db", [request, request])
    key = {"Idempotency-Key": "a-1"}
    before_the_kill = random.randint(*CALLS_BEFORE_THE_KILL)
    async with at_work(tmp_path) as (process, _, client):
        begun = await client.responses.create(**RESPONSE, extra_headers=key)
        batch = await batches.begin(client, LINES)
        while len(calls(tmp_path)) < before_the_kill or not answered(tmp_path):
            await asyncio.sleep(0.01)
        await kill(process)
    kept, known, before = recorded(tmp_path), answered(tmp_path), len(calls(tmp_path))
    async with at_work(tmp_path) as (_, http, client):
        again = await client.responses.create(**RESPONSE, extra_headers=key)
        disturbed, undisturbed = await results(http, ids)
        response = await ended(client, begun)
        done = await batches.ended(client, batch.id, seconds=60)
        found = await batches.results(client, done.output_file_id)

    after = Counter(calls(tmp_path)[before:])
    print(f"killed after {before} calls, {len(kept)} of them recorded, and {len(known)} of {len(LINES)} lines answered")
    assert kept
    assert {after[key] for key in kept} == {1}  # by the second job
    assert disturbed == undisturbed
    assert again == begun
    assert response.status in ("completed", "incomplete")
    assert response.output_text
    bodies = {answer["custom_id"]: answer["response"]["body"] for answer in found}
    assert (done.status, list(bodies)) == ("completed", [line["custom_id"] for line in LINES])
    assert all(body["choices"][0]["message"]["content"] for body in bodies.values())
    assert len(known) < len(LINES)
    for line, answer in known.items():
        assert f'"id":"{bodies[line]["id"]}"' in answer
