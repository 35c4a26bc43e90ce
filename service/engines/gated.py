"""Engine calls that wait at a gate, so that work without haste gives way to what somebody waits for."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

from service.concurrency import gather
from service.engines.base import Choice, Completion, Engine, JsonSchema, Likelihood, Piece, Sampling
from service.engines.conversation import Conversation


class Gate:
    """Lets in whoever came first while fewer than ``limit()`` are inside; one that shrinks turns nobody out. After a
    call its place stays empty for ``rest()`` times as long as the call took. ``open`` the gate when either may have
    changed for the better."""

    def __init__(self, limit: Callable[[], int], rest: Callable[[], float] = lambda: 0.0) -> None:
        self._limit = limit
        self._rest = rest
        self._inside = 0
        self._resting = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @asynccontextmanager
    async def passed(self) -> AsyncIterator[None]:
        await self._turn()
        clock = asyncio.get_running_loop().time
        begun = clock()
        try:
            yield
        finally:
            self._leave(clock() - begun)

    def open(self) -> None:
        while self._waiting and self._inside + (self._resting if self._rest() else 0) < self._limit():
            turn = self._waiting.popleft()
            if not turn.cancelled():
                self._inside += 1
                turn.set_result(None)

    async def _turn(self) -> None:
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
        if rest := seconds * self._rest():
            self._resting += 1
            asyncio.get_running_loop().call_later(rest, self._rested)
        self.open()

    def _rested(self) -> None:
        self._resting -= 1
        self.open()


@dataclass(frozen=True)
class GatedEngine:
    """An Engine each of whose sequences passes the gate."""

    engine: Engine
    gate: Gate

    @property
    def model(self) -> str:
        return self.engine.model

    @property
    def backend(self) -> object:
        return self.engine.backend

    @property
    def takes_images(self) -> bool:
        return self.engine.takes_images

    async def complete(
        self,
        conversation: Conversation,
        sampling: Sampling,
        *,
        n: int = 1,
        schema: JsonSchema | None = None,
        priority: int = 0,
    ) -> Sequence[Completion]:
        async def sibling(index: int) -> Completion:
            async with self.gate.passed():
                [completion] = await self.engine.complete(
                    conversation, sampling.sibling(index), schema=schema, priority=priority
                )
            return completion

        return await gather(sibling(index) for index in range(n))

    async def stream(
        self, conversation: Conversation, sampling: Sampling, *, schema: JsonSchema | None = None, priority: int = 0
    ) -> AsyncGenerator[Piece, None]:
        async with (
            self.gate.passed(),
            aclosing(self.engine.stream(conversation, sampling, schema=schema, priority=priority)) as items,
        ):
            async for item in items:
                yield item

    async def choose(
        self, conversation: Conversation, options: Sequence[str], *, lead: str = "", priority: int = 0
    ) -> Choice:
        async with self.gate.passed():
            return await self.engine.choose(conversation, options, lead=lead, priority=priority)

    async def likelihood(self, conversation: Conversation, reply: str, *, priority: int = 0) -> Likelihood:
        async with self.gate.passed():
            return await self.engine.likelihood(conversation, reply, priority=priority)

    async def fit(self, conversation: Conversation, tokens: int = 1) -> None:
        await self.engine.fit(conversation, tokens)

    async def check(self) -> None:
        await self.engine.check()
