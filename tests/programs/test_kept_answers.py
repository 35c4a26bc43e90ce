"""Answers in memory and in a database: found again by caller and key, within a number of bytes and a time."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from service.errors import KeyReused
from service.programs.kept_answers import OVERHEAD_BYTES, IdempotencyKey, MemoryAnswers
from tests.support.answers import ANN, BOB, Shelf, in_database, in_memory, make_answer
from tests.support.postgres import make_database

MakeShelf = Callable[[int, float], Awaitable[Shelf]]
ROOM = 1_000_000


@pytest.fixture(params=["memory", "sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
async def make_shelf(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[MakeShelf]:
    """Makes a store with so many bytes that keeps answers for so many seconds."""
    async with AsyncExitStack() as stack:

        async def make(max_bytes: int, seconds: float) -> Shelf:
            if request.param == "memory":
                return in_memory(max_bytes, seconds)
            place: str | Path = tmp_path / "store.db"
            if request.param == "postgres":
                place = await make_database(request.getfixturevalue("postgres"))
            return await stack.enter_async_context(in_database(place, max_bytes, seconds))

        yield make


@pytest.fixture
async def shelf(make_shelf: MakeShelf) -> Shelf:
    return await make_shelf(ROOM, 60.0)


async def test_an_answer_is_found_again_under_its_key(shelf: Shelf) -> None:
    assert not await shelf.store.has(ANN)
    assert await shelf.store.begin(ANN, "f") is None
    await shelf.store.keep(ANN, "f", make_answer())

    assert await shelf.store.has(ANN)
    assert await shelf.store.begin(ANN, "f") == make_answer()


async def test_a_key_is_its_caller_s_own(shelf: Shelf) -> None:
    assert await shelf.store.begin(ANN, "f") is None
    await shelf.store.keep(ANN, "f", make_answer())

    assert not await shelf.store.has(BOB)
    assert await shelf.store.begin(BOB, "other") is None


async def test_a_key_with_another_request_is_refused(shelf: Shelf) -> None:
    assert await shelf.store.begin(ANN, "f") is None
    await shelf.store.keep(ANN, "f", make_answer())

    with pytest.raises(KeyReused):
        await shelf.store.begin(ANN, "other")
    assert await shelf.store.begin(ANN, "f") == make_answer()


async def test_a_released_key_is_free(shelf: Shelf) -> None:
    assert await shelf.store.begin(ANN, "f") is None
    await shelf.store.release(ANN)

    assert not await shelf.store.has(ANN)
    assert await shelf.store.begin(ANN, "other") is None


async def test_an_answer_is_kept_for_its_time_and_then_gives_its_room_back(shelf: Shelf) -> None:
    assert await shelf.store.begin(ANN, "f") is None
    await shelf.store.keep(ANN, "f", make_answer())
    shelf.pass_time(30.0)
    assert await shelf.store.has(ANN)
    shelf.pass_time(30.0)

    assert not await shelf.store.has(ANN)
    assert not await shelf.store.maintain()
    assert shelf.store.held_bytes == 0
    assert await shelf.store.begin(ANN, "other") is None


async def test_the_oldest_answer_of_the_caller_who_has_most_makes_room(make_shelf: MakeShelf) -> None:
    room = 4 * (OVERHEAD_BYTES + 100)
    shelf = await make_shelf(room, 60.0)
    keys = [BOB, *(IdempotencyKey("ann", str(number)) for number in range(5))]
    for key in keys:
        assert await shelf.store.begin(key, "f") is None
        await shelf.store.keep(key, "f", make_answer(b"x" * 100))

    assert [await shelf.store.has(key) for key in keys] == [True, False, False, True, True, True]
    assert shelf.store.held_bytes == room


async def test_an_answer_that_never_fits_is_not_kept_and_costs_nobody_a_place(make_shelf: MakeShelf) -> None:
    shelf = await make_shelf(OVERHEAD_BYTES + 100, 60.0)
    for key, size in ((ANN, 100), (BOB, 101)):
        assert await shelf.store.begin(key, "f") is None
        await shelf.store.keep(key, "f", make_answer(b"x" * size))

    assert await shelf.store.has(ANN)
    assert not await shelf.store.has(BOB)
    assert await shelf.store.begin(BOB, "other") is None


async def test_no_time_keeps_nothing(make_shelf: MakeShelf) -> None:
    shelf = await make_shelf(ROOM, 0.0)
    assert await shelf.store.begin(ANN, "f") is None
    await shelf.store.keep(ANN, "f", make_answer())

    assert shelf.store.held_bytes == 0
    assert await shelf.store.begin(ANN, "other") is None


async def test_an_answer_that_is_kept_twice_counts_once() -> None:
    answers = MemoryAnswers(ROOM, 60.0)
    await answers.keep(ANN, "f", make_answer(b"one"))
    await answers.keep(ANN, "g", make_answer(b"three"))

    assert await answers.begin(ANN, "g") == make_answer(b"three")
    assert answers.held_bytes == OVERHEAD_BYTES + 5
