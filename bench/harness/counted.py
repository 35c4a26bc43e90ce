"""An engine that writes down what it has done, so that it is known what a killed service had computed."""

import asyncio
import os
import random
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from service.engines.base import PLAINLY, Call, Completion, EngineDecorator, Piece, R, Reading, Sample
from service.engines.served import ServedEngine
from service.jobs.journal import call_key


@dataclass(frozen=True)
class CountedEngine(EngineDecorator):
    """Adds the key of each call that has ended as a line to a file.

    calls: the file, open for appending.
    seconds_per_call: what a call takes longer on average, never the same, so that calls made side by side end in
        another order each time.
    """

    engine: ServedEngine
    calls: int
    seconds_per_call: float = 0.0

    async def call(self, call: Call[R], *, priority: int = 0) -> R:
        await self._pause()
        result = await self.engine.call(call, priority=priority)
        self._count(call)
        return result

    async def stream(
        self, sample: Sample, *, priority: int = 0, reading: Reading = PLAINLY
    ) -> AsyncGenerator[Piece, None]:
        await self._pause()
        stream = self.engine.stream(sample, priority=priority, reading=reading)
        async with aclosing(stream) as pieces:
            async for piece in pieces:
                if isinstance(piece, Completion):
                    self._count(sample)
                yield piece

    async def close(self) -> None:
        await self.engine.close()

    async def _pause(self) -> None:
        await asyncio.sleep(random.uniform(0, 2 * self.seconds_per_call))  # noqa: S311 - nothing secret is drawn

    def _count(self, call: "Call[R]") -> None:
        os.write(self.calls, f"{call_key(self.model, call)}\n".encode())


def open_calls(path: str) -> int:
    """The file of calls, open for appending."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
