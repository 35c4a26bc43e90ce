"""Stores of answers for tests, each with a way to let time pass."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from service.programs.database import AnswerDatabase, answers
from service.programs.kept_answers import AnswerStore, IdempotencyKey, KeptAnswer, MemoryAnswers
from service.store.opening import open_database

ANN, BOB = IdempotencyKey("ann", "k"), IdempotencyKey("bob", "k")


def make_answer(body: bytes = b"{}") -> KeptAnswer:
    return KeptAnswer(200, ((b"content-type", b"application/json"), (b"x", b"\xe4")), body)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Shelf:
    """A store of answers. ``pass_time``: let this many seconds pass."""

    store: AnswerStore
    pass_time: Callable[[float], None] = field(repr=False)


def in_memory(max_bytes: int, seconds: float) -> Shelf:
    clock = Clock()

    def pass_time(elapsed: float) -> None:
        clock.now += elapsed

    return Shelf(MemoryAnswers(max_bytes, seconds, clock), pass_time)


@asynccontextmanager
async def in_database(
    place: str | Path, max_bytes: int = 1_000_000, seconds: float = 60.0, lease: float = 15.0
) -> AsyncIterator[Shelf]:
    """Answers in the database at ``place``. Time passes by moving all its ends."""
    database = open_database(str(place))

    def pass_time(elapsed: float) -> None:
        database.run_now(lambda c: c.execute(answers.update().values(expires=answers.c.expires - elapsed)))

    try:
        yield Shelf(AnswerDatabase(database, max_bytes, seconds, lease), pass_time)
    finally:
        await database.close()
