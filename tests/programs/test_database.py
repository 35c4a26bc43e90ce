"""Answers in a database: after a restart, and with several services on one Postgres."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from service.errors import KeyReused, StillAtWork
from service.programs.kept_answers import OVERHEAD_BYTES, KeptAnswer
from tests.support.answers import ANN, BOB, Shelf, in_database, make_answer
from tests.support.postgres import make_database

LEASE = 15.0


@pytest.fixture
async def two(postgres: str) -> AsyncIterator[tuple[Shelf, Shelf]]:
    """Two services' answers on one Postgres."""
    place = await make_database(postgres)
    async with in_database(place, lease=LEASE) as one, in_database(place, lease=LEASE) as other:
        yield one, other


async def test_an_answer_survives_a_restart(place: str) -> None:
    big = KeptAnswer(200, (), bytes(range(256)) * 1_000)
    async with in_database(place) as shelf:
        assert await shelf.store.begin(ANN, "f") is None
        await shelf.store.keep(ANN, "f", big)
    async with in_database(place) as shelf:
        assert await shelf.store.has(ANN)
        assert shelf.store.held_bytes == len(big.body) + OVERHEAD_BYTES
        with pytest.raises(KeyReused):
            await shelf.store.begin(ANN, "other")
        assert await shelf.store.begin(ANN, "f") == big


async def test_work_that_ended_with_its_process_can_begin_again_at_once(tmp_path: Path) -> None:
    async with in_database(tmp_path / "store.db") as shelf:
        assert await shelf.store.begin(ANN, "f") is None
    async with in_database(tmp_path / "store.db") as shelf:
        assert not await shelf.store.has(ANN)
        assert await shelf.store.begin(ANN, "f") is None


async def test_no_byte_of_an_answer_is_left_after_its_time(tmp_path: Path) -> None:
    secret = b"the sea is salt" * 2_000
    async with in_database(tmp_path / "store.db") as shelf:
        assert await shelf.store.begin(ANN, "f") is None
        await shelf.store.keep(ANN, "f", make_answer(secret))
        shelf.pass_time(60.0)
        await shelf.store.maintain()

    left = await asyncio.to_thread(lambda: b"".join(file.read_bytes() for file in tmp_path.iterdir()))
    assert len(left) > len(secret)
    assert b"the sea is salt" not in left


@pytest.mark.postgres
async def test_one_service_at_a_time_works_under_a_key(two: tuple[Shelf, Shelf]) -> None:
    one, other = two
    assert await one.store.begin(ANN, "f") is None

    assert await other.store.has(ANN)
    with pytest.raises(StillAtWork):
        await other.store.begin(ANN, "f")
    with pytest.raises(KeyReused):
        await other.store.begin(ANN, "other")
    assert await other.store.begin(BOB, "f") is None
    await one.store.keep(ANN, "f", make_answer())
    assert await other.store.begin(ANN, "f") == make_answer()


@pytest.mark.postgres
async def test_of_many_that_begin_at_once_one_does(postgres: str) -> None:
    place = await make_database(postgres)
    async with AsyncExitStack() as stack:
        shelves = [await stack.enter_async_context(in_database(place)) for _ in range(4)]
        tries = [shelf.store.begin(ANN, "f") for shelf in shelves for _ in range(5)]
        outcomes = await asyncio.gather(*tries, return_exceptions=True)

    assert [outcome for outcome in outcomes if not isinstance(outcome, StillAtWork)] == [None]


@pytest.mark.postgres
async def test_who_holds_a_key_keeps_it(two: tuple[Shelf, Shelf]) -> None:
    one, other = two
    assert await one.store.begin(ANN, "f") is None
    for _ in range(3):
        one.pass_time(LEASE - 1)
        assert not await one.store.maintain()
    with pytest.raises(StillAtWork):
        await other.store.begin(ANN, "f")


@pytest.mark.postgres
async def test_a_service_that_wakes_up_overwrites_nothing(two: tuple[Shelf, Shelf]) -> None:
    paused, other = two
    assert await paused.store.begin(ANN, "f") is None
    paused.pass_time(LEASE)
    assert await other.store.begin(ANN, "f") is None

    assert list(await paused.store.maintain()) == [ANN]
    with pytest.raises(StillAtWork):
        await paused.store.keep(ANN, "f", make_answer(b"late"))
    await paused.store.release(ANN)
    await other.store.keep(ANN, "f", make_answer(b"theirs"))
    with pytest.raises(StillAtWork):
        await paused.store.keep(ANN, "f", make_answer(b"late"))
    for shelf in two:
        assert await shelf.store.begin(ANN, "f") == make_answer(b"theirs")


@pytest.mark.postgres
async def test_a_service_that_wakes_up_before_anybody_asked_keeps_its_answer(two: tuple[Shelf, Shelf]) -> None:
    paused, other = two
    assert await paused.store.begin(ANN, "f") is None
    paused.pass_time(LEASE)
    await other.store.maintain()  # drops what has expired
    await paused.store.keep(ANN, "f", make_answer())

    assert await other.store.begin(ANN, "f") == make_answer()
