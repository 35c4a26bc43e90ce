import asyncio
from contextlib import AsyncExitStack

import pytest

from service.errors import CallerLimit, DeadlineExceeded, Overloaded
from service.programs.admission import Admission
from service.programs.background import Background


def made() -> Background:
    admission = Admission(1, 1, on_shed=lambda reason: None)
    return Background(admission, max_programs=1)


def test_of_two_equal_batches_each_ends_for_itself() -> None:
    """A client that tries a batch again sends the same lines."""
    background = made()
    with background.queue(["a", "b"]) as first:
        with background.queue(["a", "b"]) as second:
            assert background.waiting == 4
            second.popleft()
            second.appendleft("a")
        assert background.waiting == 2
        first.popleft()
        assert background.waiting == 1, "the queue that is left is the first"
    assert background.waiting == 0


def test_the_earlier_of_two_equal_batches_may_end_first() -> None:
    background = made()
    first, second = background.queue(["a"]), background.queue(["a"])
    first.__enter__()
    lines = second.__enter__()
    first.__exit__(None, None, None)
    lines.popleft()
    assert background.waiting == 0
    second.__exit__(None, None, None)


async def test_a_request_that_comes_alone_waits_for_a_place_of_the_lane() -> None:
    admission = Admission(1, 0, on_shed=lambda reason: None, max_batches=2)
    background = Background(admission, max_programs=1)
    begun = asyncio.Event()

    async def second() -> None:
        async with background.admit("ann") as ticket:
            assert ticket.queued_seconds > 0.0
            begun.set()

    async with background.admit("ann") as ticket:
        assert ticket.queued_seconds >= 0.0
        waiting = asyncio.create_task(second())
        while not background.waiting:
            await asyncio.sleep(0)
        assert not begun.is_set()
        assert admission.in_progress == 0, "the interactive lane is free"
        async with admission.admit("bob"):
            pass
    await waiting
    assert background.waiting == 0
    await admission.idle()


async def test_it_counts_as_a_batch_of_its_caller() -> None:
    admission = Admission(1, 0, 2, max_batches=3, on_shed=lambda reason: None)
    background = Background(admission, max_programs=9)
    async with AsyncExitStack() as held:
        for caller in ("ann", "ann", "bob"):
            await held.enter_async_context(background.admit(caller))
        with pytest.raises(CallerLimit):
            await held.enter_async_context(background.admit("ann"))
        with pytest.raises(Overloaded, match="3 batches"):
            await held.enter_async_context(background.admit("bob"))
    await admission.idle()


async def test_one_that_gets_no_place_in_time_leaves_nothing_behind() -> None:
    admission = Admission(1, 0, max_batches=2, on_shed=lambda reason: None)
    background = Background(admission, max_programs=1)
    async with background.admit("ann"):
        with pytest.raises(DeadlineExceeded):
            async with background.admit("ann", deadline=asyncio.get_running_loop().time()):
                pass
        assert background.waiting == 0
    async with background.admit("ann", deadline=asyncio.get_running_loop().time() + 60):
        pass
    await admission.idle()
