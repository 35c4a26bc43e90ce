"""Batches in a database on which nobody works."""

from collections.abc import AsyncIterator

import pytest

from service.batches.database import BatchDatabase
from service.deliveries.database import DeliveryDatabase
from service.store.opening import open_database


@pytest.fixture
async def store(place: str) -> AsyncIterator[BatchDatabase]:
    database = open_database(place)
    try:
        yield BatchDatabase(database, DeliveryDatabase(database), lease=15.0)
    finally:
        await database.close()
