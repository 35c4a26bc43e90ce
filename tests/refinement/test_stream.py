import asyncio
import gc

import pytest

from service.refinement.accounting import Emit
from service.refinement.events import Delta, Event
from service.refinement.stream import events_of


def delta(number: int) -> Delta:
    return Delta(0, number, "x")


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
