"""A store of traces."""

from collections.abc import AsyncIterator

import pytest

from service.traces.database import TraceDatabase
from tests.support.stored_traces import trace_store


@pytest.fixture
async def store(place: str) -> AsyncIterator[TraceDatabase]:
    async with trace_store(place) as opened:
        yield opened
