"""What a worker does if engines, the store or the process fail it."""

import asyncio
import re
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from service.engines.base import Sample
from service.engines.scripted import EngineCall, Script
from service.errors import EngineUnavailable
from service.jobs.attempt import MOST_IDLE_ATTEMPTS
from service.jobs.database import JobDatabase
from service.jobs.job import Claim
from tests.app.test_metrics import samples, value
from tests.support.orders import job_store, make_request, make_store
from tests.support.scripts import role_of, stall
from tests.support.serving import Served, reply, serving

SIMPLE = make_request(2, search={"rounds": 1})


@asynccontextmanager
async def with_jobs(place: Path, script: Script, **settings: Any) -> AsyncIterator[Served]:
    async with serving(script, store=str(place), **settings) as served:
        yield served


async def ended(served: Served, job: str) -> dict[str, Any]:
    async with asyncio.timeout(20):
        body: dict[str, Any] = (await served.client.get(f"/v1/jobs/{job}")).json()
        while body["finished_at"] is None:
            await asyncio.sleep(0.01)
            body = (await served.client.get(f"/v1/jobs/{job}")).json()
    return body


async def test_a_job_waits_while_its_engine_cannot_serve(tmp_path: Path) -> None:
    failures = iter(range(3))

    def fault(call: EngineCall) -> None:
        if next(failures, None) is not None:
            raise EngineUnavailable("away", retry_after=0)

    [job] = await make_store(tmp_path / "jobs.db", [SIMPLE])
    async with with_jobs(tmp_path / "jobs.db", Script(reply=reply, fault=fault)) as served:
        body = await ended(served, job)
        text = (await served.client.get(f"/v1/jobs/{job}/events")).text

    assert (body["state"], body["result"]["stop_reason"]) == ("completed", "rounds")
    assert text.count("event: started") == text.count("event: done") == 1


async def test_a_job_that_ends_its_process_each_time_is_given_up(tmp_path: Path) -> None:
    place = tmp_path / "jobs.db"
    [job] = await make_store(place, [SIMPLE])
    async with job_store(place) as store:
        for _ in range(MOST_IDLE_ATTEMPTS):  # each by a process that ended before it had recorded anything
            assert await store.claim("gone", 0.0)
    async with with_jobs(place, Script(reply=reply)) as served:
        body = await ended(served, job)
        calls = len(served.engine.calls)

    assert (body["state"], body["error"]["code"], calls) == ("failed", "internal_error", 0)
    assert "begun 10 times" in body["error"]["detail"]


async def test_no_more_jobs_run_at_once_than_are_allowed(tmp_path: Path) -> None:
    most = 0

    def fault(call: EngineCall) -> None:
        nonlocal most
        most = max(most, served.app.state.jobs.worker.at_work)

    ids = await make_store(tmp_path / "jobs.db", [SIMPLE] * 6)
    async with with_jobs(tmp_path / "jobs.db", Script(reply=reply, fault=fault), max_jobs=2) as served:
        for job in ids:
            assert (await ended(served, job))["state"] == "completed"

    assert most == 2


async def test_attempts_steps_and_ends_are_counted_once(tmp_path: Path) -> None:
    place = tmp_path / "jobs.db"
    reached = asyncio.Event()
    async with with_jobs(place, Script(reply=reply)) as served:
        stall(served.engine, lambda call: isinstance(call, Sample) and role_of(call) == "revise", reached.set)
        job = (await served.post("/v1/refine", SIMPLE, headers={"Prefer": "respond-async"})).json()["id"]
        await asyncio.wait_for(reached.wait(), 10)
        await served.app.state.jobs.worker.hand_over()
        first = await samples(served)
    async with with_jobs(place, Script(reply=reply)) as served:
        await ended(served, job)
        async with asyncio.timeout(30):  # it is counted after it is kept
            while not value(second := await samples(served), "jobs_ended_total", kind="refine", state="completed"):
                await asyncio.sleep(0.01)

    made = value(first, "job_steps_total", outcome="made")
    assert made > 0
    assert value(first, "job_steps_total", outcome="lost") == 1
    assert value(first, "job_steps_total", outcome="replayed") == 0
    assert value(second, "job_steps_total", outcome="replayed") == made
    assert value(second, "job_steps_total", outcome="made") > 0
    assert [value(found, "job_attempts_total", attempt="first") for found in (first, second)] == [1, 0]
    assert [value(found, "job_attempts_total", attempt="again") for found in (first, second)] == [0, 1]
    ends = [value(found, "jobs_ended_total", kind="refine", state="completed") for found in (first, second)]
    assert ends == [0, 1]


async def test_the_jobs_that_wait_are_shown_with_the_age_of_the_oldest(tmp_path: Path) -> None:
    place = tmp_path / "jobs.db"
    await make_store(place, [SIMPLE] * 3)
    async with with_jobs(place, Script(reply=reply, seconds_per_call=60), max_jobs=1) as served:
        async with asyncio.timeout(30):
            while not (found := await samples(served)).get(("redraft_jobs", frozenset({("state", "queued")}))):
                await asyncio.sleep(0.01)
        later = await samples(served)

    assert value(found, "jobs", state="queued") + value(found, "jobs", state="running") == 3
    assert 0 < value(found, "oldest_queued_job_seconds") < value(later, "oldest_queued_job_seconds")


async def test_jobs_that_are_handed_over_are_taken_at_once_by_the_next(tmp_path: Path) -> None:
    place = tmp_path / "jobs.db"
    [job] = await make_store(place, [SIMPLE])
    async with with_jobs(place, Script(reply=reply, seconds_per_call=60)) as served:
        async with asyncio.timeout(30):
            while not served.engine.in_flight:
                await asyncio.sleep(0.005)
        await served.app.state.jobs.worker.hand_over()
        handed_over = (await served.client.get(f"/v1/jobs/{job}")).json()
        in_flight = served.engine.in_flight
    async with with_jobs(place, Script(reply=reply)) as served:
        assert (await ended(served, job))["state"] == "completed"

    assert (handed_over["state"], in_flight) == ("queued", 0)


def counts(page: str, metric: str) -> dict[str, float]:
    """The samples of a counter, by their labels."""
    found = re.findall(rf"^{metric}\{{(.*)\}} (\S+)$", page, re.MULTILINE)
    return {labels: float(value) for labels, value in found}


def seed_of(call: EngineCall) -> int | None:
    return call.sampling.seed if isinstance(call, Sample) else None


async def test_what_code_did_in_a_round_is_counted_once_however_often_the_job_is_taken_up(tmp_path: Path) -> None:
    failures = iter(range(3))
    request = make_request(
        2,
        search={"preset": "reflexion", "rounds": 1, "critic": "none"},
        judge=False,
        evaluators=[
            {"type": "format", "kind": "lowercase"},
            {"type": "keywords", "exclude": ["tide"]},
            {"type": "keywords", "include": ["salt"]},
        ],
    )

    texts = {2: "The tide comes in, and it goes out.", 3: "More Waves."}  # by their seeds

    def write(call: EngineCall) -> str:
        return texts.get(seed_of(call) or 0, "Waves.")

    def fault(call: EngineCall) -> None:
        if seed_of(call) == 3 and next(failures, None) is not None:
            raise EngineUnavailable("away", retry_after=0)

    [job] = await make_store(tmp_path / "jobs.db", [request])
    async with with_jobs(tmp_path / "jobs.db", Script(reply=write, fault=fault)) as served:
        body = await ended(served, job)
        page = (await served.client.get("/metrics")).text

    assert next(failures, None) is None
    assert body["state"] == "completed"
    assert counts(page, "redraft_aborts_total") == {'outcome="lost",rule="keywords"': 1.0}
    assert counts(page, "redraft_repairs_total") == {'outcome="kept",rule="format.lowercase"': 2.0}


async def test_a_job_whose_claim_is_cut_off_by_the_end_is_free_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "jobs.db"
    await make_store(place, [SIMPLE])
    claimed = asyncio.Event()
    claim = JobDatabase.claim

    async def cut_off(self: JobDatabase, owner: str, lease: float) -> Claim | None:
        found = await claim(self, owner, lease)
        claimed.set()
        await asyncio.sleep(3600)
        return found

    monkeypatch.setattr(JobDatabase, "claim", cut_off)
    async with with_jobs(place, Script(reply=reply)):
        async with asyncio.timeout(30):
            await claimed.wait()
    with closing(sqlite3.connect(place)) as database:
        [(state, free_at)] = database.execute("SELECT state, free_at FROM redraft_jobs").fetchall()

    assert state == "running"
    assert free_at <= time.time()
