"""A program's work as a stream of its events."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable

from service.refinement.accounting import Emit
from service.refinement.events import Event


async def events_of(work: Callable[[Emit], Awaitable[None]]) -> AsyncGenerator[Event, None]:
    """Run ``work`` and yield what it emits, as it happens; raise what it raises, after its events.

    Closing the generator cancels the work and waits until it has ended.
    """
    events: asyncio.Queue[Event | None] = asyncio.Queue()
    task = asyncio.ensure_future(work(events.put_nowait))
    task.add_done_callback(lambda _: events.put_nowait(None))
    try:
        while (event := await events.get()) is not None:
            yield event
        await task
    finally:
        task.cancel()
        await asyncio.wait([task])
