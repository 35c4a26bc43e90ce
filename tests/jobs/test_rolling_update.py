"""Two services on one Postgres are replaced one after the other while requests and jobs come in."""

import asyncio
from asyncio.subprocess import Process
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path

import httpx
import psycopg
import pytest

from tests.jobs.test_kills import results
from tests.jobs.test_replicas import calls, replica
from tests.support.orders import make_request
from tests.support.postgres import make_database

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(300)]

CLIENTS = 10  # more than one service works on at once
ASKING = 3  # who wait for their answers meanwhile
PREFER = {"Prefer": "respond-async"}


def attempts(place: str) -> dict[str, int]:
    with psycopg.connect(place) as connection:
        return dict(connection.execute("SELECT id, attempt FROM redraft_jobs").fetchall())


async def test_no_job_and_no_request_is_lost_while_both_services_are_replaced(postgres: str, tmp_path: Path) -> None:
    place = await make_database(postgres)
    serving: list[httpx.AsyncClient] = []
    statuses: list[int] = []
    answers: list[int] = []
    ids: list[str] = []
    numbers = count()
    over = asyncio.Event()

    async def order_on() -> None:
        """Send a job to the next of the services that are known, and another once it has ended."""
        while not over.is_set():
            number = next(numbers)
            response = await serving[number % len(serving)].post(
                "/v1/refine", json=make_request(number), headers=PREFER
            )
            statuses.append(response.status_code)
            if response.status_code != 202:
                return
            ids.append(response.json()["id"])
            job = f"/v1/jobs/{response.json()['id']}"
            while (await serving[-1].get(job)).json()["finished_at"] is None:  # of the newest, which serves on
                await asyncio.sleep(0.1)

    async def ask_on() -> None:
        """Send a request to the next of the services that are known, and another once it is answered."""
        while not over.is_set():
            number = next(numbers)
            response = await serving[number % len(serving)].post("/v1/refine", json=make_request(number))
            answers.append(response.status_code)

    async with AsyncExitStack() as stack:

        async def start(name: str) -> tuple[Process, httpx.AsyncClient]:
            process, client = await stack.enter_async_context(replica(place, tmp_path, name))
            serving.append(client)
            return process, client

        old = [await start("old 0"), await start("old 1")]
        clients = [asyncio.ensure_future(order_on()) for _ in range(CLIENTS)]
        clients += [asyncio.ensure_future(ask_on()) for _ in range(ASKING)]
        codes = []
        for number, (process, client) in enumerate(old):
            await start(f"new {number}")
            async with asyncio.timeout(60):
                while not calls(tmp_path, f"new {number}"):
                    await asyncio.sleep(0.05)
            serving.remove(client)  # as load balancers do during preStop
            await asyncio.sleep(0.5)  # what was on its way has arrived
            process.terminate()
            async with asyncio.timeout(60):
                codes.append(await process.wait())
        over.set()
        await asyncio.gather(*clients)
        found = await results(serving[0], ids)
        taken_up = [job for job, attempt in attempts(place).items() if attempt > 1]

    assert codes == [0, 0]
    assert set(statuses) == {202}
    assert set(answers) == {200}
    assert len(found) == len(set(ids)) >= CLIENTS
    assert taken_up  # jobs were at work when their service ended
    print(f"{len(ids)} jobs, {len(taken_up)} of them continued by another service")
