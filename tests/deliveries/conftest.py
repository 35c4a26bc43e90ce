"""A store of jobs with their deliveries, on which nobody works, and a clock that tests move."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from service.deliveries.database import DeliveryDatabase
from service.deliveries.delivery import Destination
from service.jobs.database import JobDatabase
from service.jobs.job import Job, JobEvent, JobState, Progress
from service.programs.ids import make_id
from service.store.opening import open_database
from tests.support.orders import make_order, make_request


@dataclass
class Clock:
    """Receivers refuse what is sent more than five minutes off their own clock, which tests don't move."""

    now: float = field(default_factory=time.time)

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class Store:
    jobs: JobDatabase
    deliveries: DeliveryDatabase
    clock: Clock

    async def add(self, destination: Destination | None) -> str:
        """A new job, of whose end the destination hears."""
        job = Job(make_id("job"), "anonymous", "refine", "queued", time.time())
        await self.jobs.add(job, make_order(make_request(0)), notify=destination)
        return job.id

    async def end(self, destination: Destination | None, state: JobState = "completed") -> str:
        """A job that has ended."""
        job_id = await self.add(destination)
        claim = await self.jobs.claim("me", 15.0)
        assert claim is not None
        assert claim.job.id == job_id
        await self.jobs.finish(claim, state, JobEvent(1, "done", {"text": "Waves."}), Progress())
        return job_id


@asynccontextmanager
async def opened(place: str, clock: Clock) -> AsyncIterator[Store]:
    database = open_database(place)
    try:
        deliveries = DeliveryDatabase(database, clock)
        yield Store(JobDatabase(database, deliveries, lease=15.0), deliveries, clock)
    finally:
        await database.close()


@pytest.fixture
async def store(place: str) -> AsyncIterator[Store]:
    async with opened(place, Clock()) as store:
        yield store
