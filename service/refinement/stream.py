"""A program's work as a stream of its events."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import replace
from io import StringIO

from service.refinement.accounting import Emit
from service.refinement.events import Delta, Event, ReasoningDelta, TextDelta, TextReasoningDelta

Piece = Delta | ReasoningDelta | TextDelta | TextReasoningDelta


async def events_of(work: Callable[[Emit], Awaitable[None]]) -> AsyncGenerator[Event, None]:
    """Run ``work`` and yield what it emits, as it happens; raise what it raises, after its events.

    Pieces of a text that wait for a slow reader are joined. Closing the generator cancels the work and waits until it
    has ended.
    """
    waiting = _Waiting()
    news = asyncio.Event()

    def emit(event: Event) -> None:
        waiting.add(event)
        news.set()

    task = asyncio.ensure_future(work(emit))
    task.add_done_callback(lambda _: news.set())
    try:
        while waiting or not task.done():
            await news.wait()
            news.clear()
            for event in waiting.take():
                yield event
        await task
    finally:
        task.cancel()
        await asyncio.wait([task])


class _Joined:
    """Pieces of one text that wait together."""

    def __init__(self, first: Piece, second: Piece) -> None:
        self.first = first
        self._text = StringIO()
        self.add(first)
        self.add(second)

    def add(self, piece: Piece) -> None:
        self._text.write(piece.text)

    def event(self) -> Event:
        return replace(self.first, text=self._text.getvalue())


class _Waiting:
    """Events that wait for their reader. What they hold is bounded by the texts that are written, not by how many
    pieces these have."""

    def __init__(self) -> None:
        self._events: list[Event | _Joined] = []
        self._open: dict[tuple[type[Piece], int, int], int] = {}
        """Where the pieces wait that nothing but pieces has followed."""

    def __bool__(self) -> bool:
        return bool(self._events)

    def add(self, event: Event) -> None:
        if isinstance(event, Piece):
            self._join(event)
            return
        self._open.clear()
        self._events.append(event)

    def take(self) -> Sequence[Event]:
        """The events so far, in their order, but of pieces that stand together one for each text."""
        taken = [each.event() if isinstance(each, _Joined) else each for each in self._events]
        self._events.clear()
        self._open.clear()
        return taken

    def _join(self, piece: Piece) -> None:
        first, second = _key(piece)
        key = type(piece), first, second
        at = self._open.setdefault(key, len(self._events))
        if at == len(self._events):
            self._events.append(piece)
            return
        waiting = self._events[at]
        if isinstance(waiting, _Joined):
            waiting.add(piece)
        elif isinstance(waiting, Piece):
            self._events[at] = _Joined(waiting, piece)


def _key(piece: Piece) -> tuple[int, int]:
    """What tells a piece's text from others of its kind."""
    if isinstance(piece, Delta | ReasoningDelta):
        return piece.prompt_index, piece.index
    return piece.round, piece.index
