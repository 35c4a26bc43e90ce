"""Engine calls that wait at a gate, so that work without haste gives way to calls that somebody waits for."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

from service.engines.base import PLAINLY, Call, EngineDecorator, Piece, R, Reading, Sample


class Gate:
    """Lets calls in, first come first served, while fewer than ``limit()`` are inside. A limit that shrinks ends no
    call.

    After a call its slot stays empty for ``cooldown()`` times as long as the call took. Call ``open`` when the limit
    may have grown or the cooldown shrunk.
    """

    def __init__(self, limit: Callable[[], int], cooldown: Callable[[], float] = lambda: 0.0) -> None:
        self._limit = limit
        self._cooldown = cooldown
        self._inside = 0
        self._cooling_down = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @asynccontextmanager
    async def enter(self) -> AsyncIterator[None]:
        """Wait for a slot, and hold it inside the ``async with`` block."""
        await self._wait_turn()
        clock = asyncio.get_running_loop().time
        begun = clock()
        try:
            yield
        finally:
            self._leave(clock() - begun)

    def open(self) -> None:
        """Let in as many as there are free slots."""
        while self._waiting and self._inside + (self._cooling_down if self._cooldown() else 0) < self._limit():
            turn = self._waiting.popleft()
            if not turn.cancelled():
                self._inside += 1
                turn.set_result(None)

    async def _wait_turn(self) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self.open()
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # the turn came in the same moment as the cancellation
                self._leave(0.0)
            raise

    def _leave(self, seconds: float) -> None:
        self._inside -= 1
        if cooldown := seconds * self._cooldown():
            self._cooling_down += 1
            asyncio.get_running_loop().call_later(cooldown, self._end_cooldown)
        self.open()

    def _end_cooldown(self) -> None:
        self._cooling_down -= 1
        self.open()


@dataclass(frozen=True)
class GatedEngine(EngineDecorator):
    """An Engine each of whose calls passes the gate."""

    gate: Gate

    async def call(self, call: Call[R], *, priority: int = 0) -> R:
        async with self.gate.enter():
            return await self.engine.call(call, priority=priority)

    async def stream(
        self, sample: Sample, *, priority: int = 0, reading: Reading = PLAINLY
    ) -> AsyncGenerator[Piece, None]:
        pieces = self.engine.stream(sample, priority=priority, reading=reading)
        async with self.gate.enter(), aclosing(pieces) as items:
            async for item in items:
                yield item
