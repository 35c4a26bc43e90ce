"""A store of jobs on which nobody works."""

from collections.abc import AsyncIterator

import pytest

from service.jobs.store import JobStore
from tests.support.orders import job_store


@pytest.fixture
async def store(place: str) -> AsyncIterator[JobStore]:
    async with job_store(place) as opened:
        yield opened
