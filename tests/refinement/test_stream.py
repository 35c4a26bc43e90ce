import asyncio
import gc
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engines.base import Usage
from service.refinement.accounting import Emit
from service.refinement.events import CallEnded, Delta, Event, ReasoningDelta, Started, TextDelta, TextReasoningDelta
from service.refinement.roles import Models
from service.refinement.stream import events_of


def delta(number: int) -> Delta:
    return Delta(0, number, "x")


def spelt(index: int, text: str) -> list[Delta]:
    """A text's letters, one at a time."""
    return [Delta(0, index, letter) for letter in text]


async def test_events_come_as_they_are_emitted() -> None:
    go_on = asyncio.Event()

    async def work(emit: Emit) -> None:
        emit(delta(1))
        await go_on.wait()
        emit(delta(2))

    found = events_of(work)
    assert await anext(found) == delta(1)
    go_on.set()
    assert [event async for event in found] == [delta(2)]


async def test_a_failure_is_raised_after_the_events_before_it() -> None:
    async def work(emit: Emit) -> None:
        emit(delta(1))
        emit(delta(2))
        raise KeyError("broken")

    found = events_of(work)
    assert [await anext(found), await anext(found)] == [delta(1), delta(2)]
    with pytest.raises(KeyError, match="broken"):
        await anext(found)


async def test_closing_cancels_the_work_and_waits_for_its_end() -> None:
    ended = asyncio.Event()

    async def work(emit: Emit) -> None:
        emit(delta(1))
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            emit(delta(2))
            ended.set()

    found = events_of(work)
    await anext(found)
    await found.aclose()

    assert ended.is_set()


async def test_a_cancelled_reader_ends_the_work() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def work(emit: Emit) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def read() -> list[Event]:
        return [event async for event in events_of(work)]

    reading = asyncio.create_task(read())
    await begun.wait()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert ended.is_set()


async def test_work_does_not_begin_before_it_is_read() -> None:
    begun = asyncio.Event()

    async def work(emit: Emit) -> None:
        begun.set()

    found = events_of(work)
    await asyncio.sleep(0)
    assert not begun.is_set()
    await found.aclose()
    assert not begun.is_set()


async def test_closing_after_the_work_has_failed_leaves_no_complaint(caplog: pytest.LogCaptureFixture) -> None:
    async def work(emit: Emit) -> None:
        emit(delta(1))
        raise KeyError("broken")

    found = events_of(work)
    await anext(found)
    await asyncio.sleep(0)
    await found.aclose()
    del found, work
    gc.collect()

    assert [entry.getMessage() for entry in caplog.records] == []


async def test_pieces_that_wait_together_come_as_one_for_each_text() -> None:
    started, ended = Started("p", Models.single("m"), "t"), CallEnded("draft", Usage(), 0.1, "m")

    async def work(emit: Emit) -> None:
        drafted = [*spelt(0, "Wa"), *spelt(1, "Fo"), *spelt(0, "ve")]
        events: list[Event] = [started, *drafted, ended, *spelt(1, "am"), ended]
        for event in events:
            emit(event)

    assert [event async for event in events_of(work)] == [
        started,
        Delta(0, 0, "Wave"),
        Delta(0, 1, "Fo"),
        ended,
        Delta(0, 1, "am"),
        ended,
    ]


async def test_pieces_are_joined_only_while_the_reader_is_elsewhere() -> None:
    async def work(emit: Emit) -> None:
        for piece in spelt(0, "salt"):
            emit(piece)
            await asyncio.sleep(0.001)

    eager = [event async for event in events_of(work)]
    slow = []
    async for event in events_of(work):
        slow.append(event)
        await asyncio.sleep(0.1)

    assert eager == spelt(0, "salt")
    assert slow == [Delta(0, 0, "s"), Delta(0, 0, "alt")]


async def test_pieces_of_different_kinds_are_not_joined() -> None:
    pieces: list[Event] = [
        Delta(0, 0, "a"),
        ReasoningDelta(0, 0, "b"),
        TextDelta(0, 0, "c"),
        TextReasoningDelta(0, 0, "d"),
    ]

    async def work(emit: Emit) -> None:
        for piece in [*pieces, *pieces]:
            emit(piece)

    assert [event async for event in events_of(work)] == [
        Delta(0, 0, "aa"),
        ReasoningDelta(0, 0, "bb"),
        TextDelta(0, 0, "cc"),
        TextReasoningDelta(0, 0, "dd"),
    ]


async def test_a_reader_who_stands_still_makes_no_piece_wait_by_itself() -> None:
    """A hundred thousand events would take 15 MB."""
    written = asyncio.Event()

    async def work(emit: Emit) -> None:
        emit(TextDelta(0, 0, "-"))
        await asyncio.sleep(0)
        for number in range(100_000):
            emit(TextDelta(0, number % 2, "x"))
        written.set()
        await asyncio.Event().wait()

    found = events_of(work)
    await anext(found)
    tracemalloc.start()
    try:
        await written.wait()
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 1_000_000
    assert [await anext(found), await anext(found)] == [TextDelta(0, 0, "x" * 50_000), TextDelta(0, 1, "x" * 50_000)]
    await found.aclose()


@given(pieces=st.lists(st.tuples(st.integers(0, 2), st.text(max_size=3))), turns=st.sets(st.integers(0, 20)))
def test_no_piece_is_lost_and_each_text_keeps_its_order(pieces: list[tuple[int, str]], turns: set[int]) -> None:
    async def work(emit: Emit) -> None:
        for number, (index, text) in enumerate(pieces):
            emit(Delta(0, index, text))
            if number in turns:
                await asyncio.sleep(0)

    async def texts() -> dict[int, str]:
        found: dict[int, str] = {}
        async for event in events_of(work):
            assert isinstance(event, Delta)
            found[event.index] = found.get(event.index, "") + event.text
        return found

    said: dict[int, str] = {}
    for index, text in pieces:
        said[index] = said.get(index, "") + text
    assert asyncio.run(texts()) == said
