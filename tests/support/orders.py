"""Jobs for tests: requests that make many calls side by side, and what must be the same however often they are cut."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from service.deliveries.database import DeliveryDatabase
from service.jobs.database import JobDatabase
from service.jobs.job import Job, Order
from service.jobs.store import JobStore
from service.programs.ids import make_id
from service.store.opening import open_database

PRESETS = ("beam", "adaptive", "self_refine", "reflexion")


def make_request(number: int, **fields: Any) -> dict[str, Any]:
    """One of several requests that differ in their prompts, seeds and presets."""
    return {
        "prompt": f"Describe the sea, in version {number}.",
        "search": {"preset": PRESETS[number % len(PRESETS)], "rounds": 3},
        "stop": {"patience": 9},
        "sampling": {"seed": number, "max_tokens": 40},
        **fields,
    }


def make_order(request: Mapping[str, Any], caller: str = "anonymous") -> Order:
    """The order of a refine, with the same delimiter each time: the judge reads it too."""
    return Order("refine", json.dumps(request), caller, "request", "[fence]", seed=1)


async def add_jobs(store: JobStore, requests: Sequence[Mapping[str, Any]], caller: str = "anonymous") -> list[str]:
    """Put jobs into a store; their ids, in the order of the requests."""
    ids = []
    for request in requests:
        job = Job(make_id("job"), caller, "refine", "queued", time.time())
        await store.add(job, make_order(request, caller))
        ids.append(job.id)
        await asyncio.sleep(0.002)  # ids sort by milliseconds
    return ids


@asynccontextmanager
async def job_store(place: str | Path) -> AsyncIterator[JobStore]:
    """The jobs in the database at ``place``."""
    database = open_database(str(place))
    try:
        yield JobDatabase(database, DeliveryDatabase(database), lease=15.0)
    finally:
        await database.close()


async def make_store(place: str | Path, requests: Sequence[Mapping[str, Any]]) -> list[str]:
    """A store of such jobs, on which nobody works yet."""
    async with job_store(place) as store:
        return await add_jobs(store, requests)


def comparable(result: Mapping[str, Any]) -> Any:
    """A result without what depends on the clock, on chance, or on what an engine has in its cache."""
    return _without(result, {"id", "timing", "seconds", "cached_tokens"})


def _without(value: Any, names: set[str]) -> Any:
    if isinstance(value, dict):
        return {name: _without(item, names) for name, item in value.items() if name not in names}
    return [_without(item, names) for item in value] if isinstance(value, list) else value
