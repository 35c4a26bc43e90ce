"""A program's work as a stream of its events."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator
from dataclasses import replace

from service.refinement.accounting import Emit
from service.refinement.events import Delta, Event, ReasoningDelta


async def events_of(work: Callable[[Emit], Awaitable[None]]) -> AsyncGenerator[Event, None]:
    """Run ``work`` and yield what it emits, as it happens; raise what it raises, after its events.

    Pieces of a text that wait for a slow reader are joined. Closing the generator cancels the work and waits until it
    has ended.
    """
    waiting: list[Event] = []
    news = asyncio.Event()

    def emit(event: Event) -> None:
        waiting.append(event)
        news.set()

    task = asyncio.ensure_future(work(emit))
    task.add_done_callback(lambda _: news.set())
    try:
        while waiting or not task.done():
            await news.wait()
            news.clear()
            found = waiting.copy()
            waiting.clear()
            for event in _joined(found) if len(found) > 1 else found:
                yield event
        await task
    finally:
        task.cancel()
        await asyncio.wait([task])


def _joined(events: Iterable[Event]) -> Iterator[Event]:
    """The events in their order, but of deltas that stand together one for each text."""
    texts: dict[tuple[type[Event], int, int], Delta | ReasoningDelta] = {}
    for event in events:
        if isinstance(event, Delta | ReasoningDelta):
            place = type(event), event.prompt_index, event.index
            before = texts.setdefault(place, event)
            if before is not event:
                texts[place] = replace(before, text=before.text + event.text)
        else:
            yield from texts.values()
            texts.clear()
            yield event
    yield from texts.values()
