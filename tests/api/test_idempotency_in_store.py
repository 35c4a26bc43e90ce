"""Idempotency-Key with a database: answers survive a restart, replicas share them, and a job has one key."""

import asyncio
from collections.abc import Mapping
from typing import Any

import psycopg
import pytest

from service.engines.scripted import Script
from tests.support.postgres import make_database
from tests.support.scripts import stall
from tests.support.serving import Served, reply, serving

PROMPT = {"prompt": "Write about the sea."}
OTHER = {"prompt": "Write about sand."}
KEY = {"Idempotency-Key": "8e03978e-40d5"}
ASYNC = {**KEY, "Prefer": "respond-async"}
SLOW = Script(reply=reply, seconds_per_call=0.05)
REPEATED = "idempotency-replayed"


async def lose_keys(place: str) -> None:
    """Let the right of everybody at work expire, as if they had been paused."""
    connection = await psycopg.AsyncConnection.connect(place, autocommit=True)
    async with connection:
        await connection.execute("UPDATE redraft_answers SET expires = 0 WHERE status IS NULL")


@pytest.mark.parametrize("body", [PROMPT, {**PROMPT, "stream": True}])
async def test_of_50_at_once_one_works_and_its_answer_outlives_the_service(place: str, body: Mapping[str, Any]) -> None:
    async with serving(SLOW, store=place) as served:
        asked = [served.post("/v1/refine", body, headers=KEY) for _ in range(50)]
        answers = await asyncio.gather(*asked)
        of_50 = len(served.engine.calls)
        await served.post("/v1/refine", body)
        of_one = len(served.engine.calls) - of_50
    async with serving(store=place) as served:
        again = await served.post("/v1/refine", body, headers=KEY)
        refused = await served.post("/v1/refine", OTHER, headers=KEY)
        page = (await served.client.get("/metrics")).text
        after_restart = len(served.engine.calls)

    assert {answer.status_code for answer in answers} == {200}
    assert {answer.content for answer in answers} == {again.content}
    assert of_50 == of_one > 0
    assert (again.headers[REPEATED], again.headers["content-type"]) == ("true", answers[0].headers["content-type"])
    assert (refused.status_code, refused.json()["code"]) == (422, "idempotency_key_reused")
    assert after_restart == 0
    assert f"redraft_kept_answers_bytes {float(len(again.content) + 1_024)}" in page


async def test_work_that_the_end_of_the_service_cut_is_worked_on_again(place: str) -> None:
    async with serving(store=place) as served:
        stall(served.engine, lambda call: True)
        asking = asyncio.create_task(served.post("/v1/refine", PROMPT, headers=KEY))
        await served.until(lambda: served.engine.in_flight == 1)
        asking.cancel()
        await asyncio.wait([asking])
    async with serving(store=place, idempotency_wait=0.0) as served:
        again = await served.post("/v1/refine", PROMPT, headers=KEY)

    assert again.status_code == 200
    assert REPEATED not in again.headers


async def test_a_job_is_taken_on_once_under_its_key_also_after_a_restart(place: str) -> None:
    async with serving(store=place) as served:
        taken = await asyncio.gather(*(served.post("/v1/refine", PROMPT, headers=ASYNC) for _ in range(20)))
        refused = await served.post("/v1/refine", OTHER, headers=ASYNC)
        at_once = await served.post("/v1/refine", PROMPT, headers=KEY)
        jobs = (await served.client.get("/v1/jobs")).json()["jobs"]
    async with serving(store=place) as served:
        again = await served.post("/v1/refine", PROMPT, headers=ASYNC)

    assert [job["id"] for job in jobs] == [taken[0].json()["id"]]
    assert {answer.status_code for answer in (*taken, again)} == {202}
    assert {answer.content for answer in taken} == {again.content}
    assert {answer.headers["location"] for answer in (*taken, again)} == {f"/v1/jobs/{jobs[0]['id']}"}
    assert (refused.status_code, at_once.status_code) == (422, 422)


async def test_a_job_whose_acceptance_was_not_kept_is_still_the_same_job(place: str) -> None:
    async with serving(store=place, idempotency_bytes=0) as served:
        first = await served.post("/v1/refine", PROMPT, headers=ASYNC)
        again = await served.post("/v1/refine", PROMPT, headers=ASYNC)
        other = await served.post("/v1/refine", OTHER, headers=ASYNC)

    assert REPEATED not in again.headers
    assert first.json()["id"] == again.json()["id"] != other.json()["id"]


async def test_a_job_that_is_asked_for_again_is_told_of_when_the_service_is_full(place: str) -> None:
    async with serving(store=place, max_queued_jobs=1, max_jobs=1) as served:
        stall(served.engine, lambda call: True)
        first = await served.post("/v1/refine", PROMPT, headers=ASYNC)
        await served.until(lambda: served.engine.in_flight == 1)
        await served.post("/v1/refine", PROMPT, headers={"Prefer": "respond-async"})
        full = await served.post("/v1/refine", PROMPT, headers={"Prefer": "respond-async"})
        again = await served.post("/v1/refine", PROMPT, headers=ASYNC)

    assert (full.status_code, full.json()["code"]) == (503, "overloaded")
    assert again.content == first.content


@pytest.mark.postgres
async def test_a_request_that_another_replica_works_on_is_a_conflict(postgres: str) -> None:
    place = await make_database(postgres)
    async with serving(store=place) as one, serving(store=place, idempotency_wait=0.0) as other:
        stall(one.engine, lambda call: True)
        asking = asyncio.create_task(one.post("/v1/refine", PROMPT, headers=KEY))
        await one.until(lambda: one.engine.in_flight == 1)
        conflict = await other.post("/v1/refine", PROMPT, headers=KEY)
        refused = await other.post("/v1/refine", OTHER, headers=KEY)
        page = (await other.client.get("/metrics")).text
        asking.cancel()
        await asyncio.wait([asking])

    assert (conflict.status_code, conflict.json()["code"]) == (409, "still_at_work")
    assert conflict.headers["retry-after"] == "1"
    assert refused.json()["code"] == "idempotency_key_reused"
    assert other.engine.calls == []
    assert 'redraft_requests_repeated_total{outcome="still_at_work"} 1.0' in page


@pytest.mark.postgres
async def test_of_50_at_two_replicas_one_works_and_all_get_its_answer(postgres: str) -> None:
    place = await make_database(postgres)
    async with serving(SLOW, store=place) as one, serving(SLOW, store=place) as other:
        asked = [served.post("/v1/refine", PROMPT, headers=KEY) for _ in range(25) for served in (one, other)]
        answers = await asyncio.gather(*asked)
        worked = [len(served.engine.calls) for served in (one, other)]

    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert sum(REPEATED not in answer.headers for answer in answers) == 1
    assert sorted(worked)[0] == 0 < sorted(worked)[1]


@pytest.mark.postgres
async def test_a_replica_that_was_paused_gives_way(postgres: str) -> None:
    place = await make_database(postgres)
    async with serving(store=place) as paused, serving(store=place, idempotency_wait=0.0) as other:
        stall(paused.engine, lambda call: True)
        asking = asyncio.create_task(paused.post("/v1/refine", PROMPT, headers=KEY))
        await paused.until(lambda: paused.engine.in_flight == 1)
        await _taken_over(place, other)
        given_way = await asking
        await paused.at_rest()
        again = await paused.post("/v1/refine", PROMPT, headers=KEY)
        theirs = await other.post("/v1/refine", PROMPT, headers=KEY)

    assert (given_way.status_code, given_way.json()["code"]) == (409, "still_at_work")
    assert again.content == theirs.content
    assert (again.headers[REPEATED], theirs.headers[REPEATED]) == ("true", "true")


async def _taken_over(place: str, other: Served) -> None:
    """Have the other replica answer, once the first has lost its right to."""
    async with asyncio.timeout(30):
        while True:
            await lose_keys(place)
            response = await other.post("/v1/refine", PROMPT, headers=KEY)
            if response.status_code == 200:
                return
