"""A recording: every reader gets everything from the beginning, and what is held is bounded."""

import asyncio
from contextlib import aclosing

import pytest

from service.api.recording import PIECE_BYTES, Reader, Recording
from service.programs.kept_answers import KeptAnswer

START = {"type": "http.response.start", "status": 201, "headers": [(b"a", b"b")]}


class Kept:
    """What was kept."""

    def __init__(self) -> None:
        self.answers: list[KeptAnswer] = []

    async def __call__(self, answer: KeptAnswer) -> None:
        self.answers.append(answer)


def body(piece: bytes, *, more: bool = True) -> dict[str, object]:
    return {"type": "http.response.body", "body": piece, "more_body": more}


async def read(reader: Reader) -> bytes:
    async with aclosing(reader.pieces()) as pieces:
        return b"".join([piece async for piece, _ in pieces])


async def test_readers_get_the_same_before_during_and_after() -> None:
    kept = Kept()
    recording = Recording(1_000, kept)
    with recording.reader() as early, recording.reader() as late:
        reading = asyncio.create_task(read(early))
        await asyncio.sleep(0)
        await recording.send(START)
        await recording.send(body(b"one "))
        assert (await early.start()).status == 201
        joining = asyncio.create_task(read(late))
        await recording.send(body(b"two", more=False))

        assert await reading == await joining == b"one two"
    with recording.reader() as last:
        assert await read(last) == b"one two"
    assert kept.answers == [KeptAnswer(201, ((b"a", b"b"),), b"one two")]


async def test_the_end_is_kept_before_it_is_seen() -> None:
    async def keep(answer: KeptAnswer) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await reader.start()

    recording = Recording(1_000, keep)
    with recording.reader() as reader:
        await recording.send(START)
        await recording.send(body(b"whole", more=False))
        assert (await reader.start()).status == 201


async def test_an_answer_that_must_not_be_sent_is_not_seen() -> None:
    async def refuse(answer: KeptAnswer) -> None:
        raise KeyError(answer.status)

    recording = Recording(1_000, refuse)
    with recording.reader() as reader:
        await recording.send(START)
        with pytest.raises(KeyError):
            await recording.send(body(b"whole", more=False))
        recording.fail(ValueError("refused"))
        with pytest.raises(ValueError, match="refused"):
            await reader.start()


async def test_only_the_last_piece_is_the_last() -> None:
    recording = Recording(PIECE_BYTES)
    await recording.send(START)
    await recording.send(body(b"x" * (2 * PIECE_BYTES + 1), more=False))
    with recording.reader() as reader:
        async with aclosing(reader.pieces()) as pieces:
            found = [(len(piece), is_last) async for piece, is_last in pieces]

    assert found == [(PIECE_BYTES, False), (PIECE_BYTES, False), (1, True)]


async def test_a_failure_is_raised_where_the_answer_ended() -> None:
    recording = Recording(1_000)
    with recording.reader() as reader:
        recording.fail(KeyError("a bug"))
        with pytest.raises(KeyError):
            await reader.start()
    kept = Kept()
    begun = Recording(1_000, kept)
    await begun.send(START)
    await begun.send(body(b"half"))
    begun.fail(KeyError("a bug"))
    with begun.reader() as reader:
        pieces = reader.pieces()
        assert await anext(pieces) == (b"half", False)
        with pytest.raises(KeyError):
            await anext(pieces)
        await begun.send(body(b" and more", more=False))
        assert begun._body == b"half"
    assert kept.answers == []


async def test_a_failure_after_the_end_changes_nothing() -> None:
    recording = Recording(1_000)
    await recording.send(START)
    await recording.send(body(b"whole", more=False))
    recording.fail(KeyError("late"))

    with recording.reader() as reader:
        assert await read(reader) == b"whole"


async def test_an_answer_that_outgrows_its_bound_waits_for_its_readers_and_holds_no_more() -> None:
    kept = Kept()
    recording = Recording(10, kept)
    pieces = [bytes([letter]) * 8 for letter in b"abcdefgh"]

    async def work() -> None:
        await recording.send(START)
        for piece in pieces:
            await recording.send(body(piece))
            assert len(recording._body) <= 16
        await recording.send(body(b"", more=False))

    with recording.reader() as reader, recording.reader() as slow:
        working = asyncio.create_task(work())
        reading = asyncio.create_task(read(reader))
        for _ in range(20):
            await asyncio.sleep(0)
        assert recording.has_outgrown
        assert not working.done()
        assert await read(slow) == await reading == b"".join(pieces)
        await working
    assert kept.answers == []


async def test_an_answer_that_nobody_reads_holds_nobody_back() -> None:
    kept = Kept()
    recording = Recording(10, kept)
    await recording.send(START)
    for _ in range(5):
        await recording.send(body(b"x" * 11))
    await recording.send(body(b"", more=False))

    assert kept.answers == []
