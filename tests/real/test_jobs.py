"""The service with the real engine is killed with all its processes, and its jobs take no notice."""

import asyncio
import random
from collections import Counter
from pathlib import Path

import psutil

from tests.jobs.test_kills import calls, recorded, results
from tests.support.orders import make_request, make_store
from tests.support.process import served

JOBS = 2
CALLS_BEFORE_THE_KILL = (8, 20)
SERVICE = "tests.support.counted_service"


def settings(folder: Path) -> dict[str, str]:
    """One job at a time: what else the engine computes in a step changes the last digits of its results."""
    return {"REDRAFT_STORE": str(folder / "jobs.db"), "CALLS": str(folder / "calls"), "REDRAFT_MAX_JOBS": "1"}


async def kill_all(pid: int) -> None:
    """Kill a process and all that it has started, and wait for their end."""
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    for process in processes:
        process.kill()
    await asyncio.to_thread(psutil.wait_procs, processes[1:], timeout=30)


async def test_jobs_whose_service_is_killed_end_as_if_nothing_had_happened(tmp_path: Path) -> None:
    """The same jobs twice: the service is killed during the first ones, and the others are not disturbed."""
    requests = [make_request(number) for number in range(JOBS)]
    ids = await make_store(tmp_path / "jobs.db", [*requests, *requests])
    async with served(SERVICE, **settings(tmp_path)) as (process, _):
        before_the_kill = random.randint(*CALLS_BEFORE_THE_KILL)
        while len(calls(tmp_path)) < before_the_kill:
            await asyncio.sleep(0.01)
        await kill_all(process.pid)
        await process.wait()
    kept, before = recorded(tmp_path), len(calls(tmp_path))
    async with served(SERVICE, **settings(tmp_path)) as (_, client):
        found = await results(client, ids)

    after = Counter(calls(tmp_path)[before:])
    print(f"killed after {before} calls, {len(kept)} of them of a job at work; {after.total()} calls after that")
    assert kept
    assert {after[key] for key in kept} <= {1}  # by the second jobs
    assert found[:JOBS] == found[JOBS:]
