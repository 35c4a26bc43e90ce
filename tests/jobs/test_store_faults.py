"""Jobs whose database fails them for a while."""

import asyncio
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from service.engines.base import Sample
from service.engines.scripted import EngineCall, Script
from tests.support.orders import make_request
from tests.support.serving import Served, reply, serving

PREFER = {"Prefer": "respond-async"}
NO_LIMIT = 1_073_741_823
SIMPLE = make_request(2, search={"rounds": 1})
LONG = {**SIMPLE, "prompt": "Describe the sea. " * 300}


class Disk:
    """A disk that the test fills, breaks, or lets nobody write to."""

    def __init__(self) -> None:
        self.is_full = False
        self.is_read_only = False
        self.is_broken = False

    def lend(self, connection: Any, *_: object) -> None:
        if self.is_broken:
            cause = sqlite3.OperationalError("disk I/O error")
            raise sa.exc.OperationalError("BEGIN", None, cause)
        connection.execute(f"PRAGMA max_page_count = {1 if self.is_full else NO_LIMIT}").close()
        connection.execute(f"PRAGMA query_only = {int(self.is_read_only)}").close()


@pytest.fixture
def disk() -> Iterator[Disk]:
    disk = Disk()
    sa.event.listen(sa.pool.Pool, "checkout", disk.lend)
    yield disk
    sa.event.remove(sa.pool.Pool, "checkout", disk.lend)


async def begin(served: Served, path: str, body: dict[str, Any]) -> str:
    response = await served.post(path, body, headers=PREFER)
    assert response.status_code == 202, response.text
    return response.headers["location"]


async def ended(served: Served, address: str) -> dict[str, Any]:
    async with asyncio.timeout(30):
        body: dict[str, Any] = (await served.client.get(address)).json()
        while body["finished_at"] is None:
            await asyncio.sleep(0.02)
            body = (await served.client.get(address)).json()
    return body


async def logged(caplog: pytest.LogCaptureFixture, message: str) -> None:
    async with asyncio.timeout(30):
        while message not in caplog.messages:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("fault", ["is_full", "is_read_only"])
async def test_where_nothing_can_be_written_no_job_is_accepted_and_requests_are_answered(
    tmp_path: Path, disk: Disk, fault: str
) -> None:
    async with serving(Script(reply=reply), store=str(tmp_path / "jobs.db")) as served:
        setattr(disk, fault, True)
        refused = await served.post("/v1/refine", LONG, headers=PREFER)
        answered = await served.post("/v1/refine", LONG)
        listed = await served.client.get("/v1/jobs")
        setattr(disk, fault, False)
        accepted = await served.post("/v1/refine", LONG, headers=PREFER)

    assert (refused.status_code, refused.json()["code"]) == (503, "store_unavailable")
    assert answered.status_code == 200
    assert (listed.status_code, listed.json()["jobs"]) == (200, [])
    assert accepted.status_code == 202


async def test_a_job_that_could_not_be_let_go_goes_on_while_another_is_at_work(
    tmp_path: Path, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    """The leases of the process go on, so the lease of this job alone has to end."""

    def speak(sample: Sample) -> str:
        is_slow = any(turn.text == "slow" for turn in sample.conversation.turns())
        return "word " * 10_000 if is_slow else reply(sample)

    def break_down(call: EngineCall) -> None:
        disk.is_broken = next(is_broken, disk.is_broken)

    is_broken = iter((False, False, True))
    script = Script(reply=speak, fault=break_down, seconds_per_token=0.01)
    async with serving(script, store=str(tmp_path / "jobs.db"), job_lease_seconds=8.0) as served:
        slow = await begin(served, "/v1/generate", {"prompt": "slow", "sampling": {"max_tokens": 8_000}})
        job = await begin(served, "/v1/refine", SIMPLE)
        await logged(caplog, "a job is left to its lease")
        disk.is_broken = False
        body = await ended(served, job)
        other = (await served.client.get(slow)).json()
        await served.client.delete(slow)

    assert body["state"] == "completed"
    assert other["state"] == "running"
