"""The service with the real engine is killed with all its processes, and its job takes no notice."""

import asyncio
import json
import random
from collections import Counter
from pathlib import Path

import psutil

from tests.jobs.test_kills import calls, recorded, results
from tests.support.orders import make_request, make_store
from tests.support.process import served

CALLS_BEFORE_THE_KILL = (8, 20)
SERVICE = "tests.support.counted_service"
ALONE = {"max_num_seqs": 1, "enable_prefix_caching": False}


def settings(folder: Path) -> dict[str, str]:
    """One job at a time, and an engine whose calls do not change each other's last digits: it computes each alone.

    The calls that are made again after a kill would otherwise share their steps with others than before it.
    """
    return {
        "REDRAFT_STORE": str(folder / "jobs.db"),
        "CALLS": str(folder / "calls"),
        "REDRAFT_ENGINE_ARGS": json.dumps(ALONE),
        "REDRAFT_MAX_JOBS": "1",
    }


async def kill_all(pid: int) -> None:
    """Kill a process and all that it has started, and wait for their end."""
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    for process in processes:
        process.kill()
    await asyncio.to_thread(psutil.wait_procs, processes[1:], timeout=30)


async def test_a_job_whose_service_is_killed_ends_as_if_nothing_had_happened(tmp_path: Path) -> None:
    """The same job twice: the service is killed during the first, and the second is not disturbed."""
    request = make_request(0)
    ids = await make_store(tmp_path / "jobs.db", [request, request])
    async with served(SERVICE, **settings(tmp_path)) as (process, _):
        before_the_kill = random.randint(*CALLS_BEFORE_THE_KILL)
        while len(calls(tmp_path)) < before_the_kill:
            await asyncio.sleep(0.01)
        await kill_all(process.pid)
        await process.wait()
    kept, before = recorded(tmp_path), len(calls(tmp_path))
    async with served(SERVICE, **settings(tmp_path)) as (_, client):
        disturbed, undisturbed = await results(client, ids)

    after = Counter(calls(tmp_path)[before:])
    print(f"killed after {before} calls, {len(kept)} of them recorded; {after.total()} calls after that")
    assert kept
    assert {after[key] for key in kept} == {1}  # by the second job
    assert disturbed == undisturbed
