"""Answers in memory: found again by caller and key, within a number of bytes and a time."""

import pytest

from service.errors import KeyReused
from service.programs.kept_answers import OVERHEAD_BYTES, IdempotencyKey, KeptAnswer, MemoryAnswers

ANN, BOB = IdempotencyKey("ann", "k"), IdempotencyKey("bob", "k")


def answer(body: bytes = b"{}") -> KeptAnswer:
    return KeptAnswer(200, ((b"content-type", b"application/json"),), body)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def store(max_bytes: int = 1_000_000, seconds: float = 60.0, clock: Clock | None = None) -> MemoryAnswers:
    return MemoryAnswers(max_bytes, seconds, clock or Clock())


async def test_an_answer_is_found_again_under_its_key() -> None:
    answers = store()
    assert await answers.begin(ANN, "f") is None
    assert not await answers.has(ANN)
    await answers.keep(ANN, "f", answer())

    assert await answers.has(ANN)
    assert await answers.begin(ANN, "f") == answer()


async def test_a_key_is_its_caller_s_own() -> None:
    answers = store()
    await answers.keep(ANN, "f", answer())

    assert not await answers.has(BOB)
    assert await answers.begin(BOB, "other") is None


async def test_a_key_with_another_request_is_refused() -> None:
    answers = store()
    await answers.keep(ANN, "f", answer())

    with pytest.raises(KeyReused):
        await answers.begin(ANN, "other")


async def test_a_released_key_is_free() -> None:
    answers = store()
    assert await answers.begin(ANN, "f") is None
    await answers.release(ANN)

    assert await answers.begin(ANN, "other") is None


async def test_an_answer_is_kept_for_its_time_and_then_gives_its_room_back() -> None:
    clock = Clock()
    answers = store(seconds=60.0, clock=clock)
    await answers.keep(ANN, "f", answer())
    clock.now = 59.0
    assert await answers.has(ANN)
    clock.now = 60.0

    assert not await answers.has(ANN)
    assert await answers.begin(ANN, "other") is None
    await answers.keep(BOB, "f", answer())
    assert answers.held_bytes == OVERHEAD_BYTES + len(answer().body)


async def test_the_oldest_answer_of_the_caller_who_has_most_makes_room() -> None:
    room = 4 * (OVERHEAD_BYTES + 100)
    answers = store(max_bytes=room)
    keys = [BOB, *(IdempotencyKey("ann", str(number)) for number in range(5))]
    for key in keys:
        await answers.keep(key, "f", answer(b"x" * 100))

    assert [await answers.has(key) for key in keys] == [True, False, False, True, True, True]
    assert answers.held_bytes == room


async def test_an_answer_that_never_fits_is_not_kept_and_costs_nobody_a_place() -> None:
    answers = store(max_bytes=OVERHEAD_BYTES + 100)
    await answers.keep(ANN, "f", answer(b"x" * 100))
    await answers.keep(BOB, "f", answer(b"x" * 101))

    assert await answers.has(ANN)
    assert not await answers.has(BOB)


async def test_an_answer_that_is_kept_twice_counts_once() -> None:
    answers = store()
    await answers.keep(ANN, "f", answer(b"one"))
    await answers.keep(ANN, "g", answer(b"three"))

    assert await answers.begin(ANN, "g") == answer(b"three")
    assert answers.held_bytes == OVERHEAD_BYTES + 5


async def test_no_time_keeps_nothing() -> None:
    answers = store(seconds=0.0)
    await answers.keep(ANN, "f", answer())

    assert answers.held_bytes == 0
