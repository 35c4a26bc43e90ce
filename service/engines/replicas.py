"""Several servers of one model as one engine: a program stays where its prefix is cached, and moves when that fails.

*Where*: rendezvous hashing (Thaler and Ravishankar 1998) of the turns that a conversation begins with, which all calls
of a program share, over the replicas that are up. One that has more than its share of the calls in progress is passed
over (consistent hashing with bounded loads, Mirrokni et al. 2016, arXiv 1608.01350).

*When it fails*: a call that fails has its replica looked at. A replica that is down then gives up its calls, and they
are made elsewhere. One that is up is asked again, or another is; such retries are a small part of all calls, so that a
fleet that fails is not asked for more than before. Nothing is made again of which something was streamed.
"""

import asyncio
import hashlib
import logging
import math
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol, Self, TypeVar

from service.concurrency import gather
from service.engines.base import Choice, Completion, Engine, JsonSchema, Likelihood, Sampling
from service.engines.conversation import Conversation
from service.errors import EngineUnavailable

log = logging.getLogger(__name__)
T = TypeVar("T")

MOST_ATTEMPTS = 3
LONGEST_PAUSE_SECONDS = 0.2
"""Before a call is made again. How long is drawn at random, so that the calls that failed together do not return so."""
RETRIES_PER_CALL = 0.1
MOST_SAVED_RETRIES = 10.0
"""What calls that succeed may save up, so that there are retries when the first fail."""
MOST_LOAD = 1.25
"""Times the mean of the calls in progress; a replica with fewer than LEAST_LOAD is never passed over."""
LEAST_LOAD = 8
LOOK_SECONDS = 1.0
"""Between two looks at each replica."""
LOOK_TIMEOUT_SECONDS = 5.0
CONNECT_TIMEOUT_SECONDS = 60.0
"""A first look asks a server for a few tokens, to find out what it can do."""


class ClosableEngine(Engine, Protocol):
    async def close(self) -> None: ...


Connect = Callable[[], Awaitable[ClosableEngine]]


@dataclass(eq=False)
class Replica:
    """One server. ``connect`` makes its engine, or raises EngineUnavailable.

    ``calls``: the scopes of those in progress, by which they can be ended.
    """

    name: str
    connect: Connect
    engine: ClosableEngine | None = None
    up: bool = False
    calls: set[asyncio.Timeout] = field(default_factory=set)

    def serving(self) -> ClosableEngine:
        if self.engine is None:
            raise EngineUnavailable(f"{self.name} has not answered yet")
        return self.engine

    @asynccontextmanager
    async def called(self) -> AsyncIterator[None]:
        """A scope of waiting for the engine; EngineUnavailable as soon as the replica is down."""
        scope = asyncio.timeout(None)
        self.calls.add(scope)
        try:
            async with scope:
                yield
        except TimeoutError as error:
            if not scope.expired():
                raise
            raise EngineUnavailable(f"{self.name} went down during a call") from error
        finally:
            self.calls.remove(scope)

    async def look(self) -> None:
        """Find out whether the replica can serve."""
        failure = ""
        try:
            async with asyncio.timeout(LOOK_TIMEOUT_SECONDS if self.engine else CONNECT_TIMEOUT_SECONDS):
                if self.engine is None:
                    self.engine = await self.connect()
                await self.engine.check()
        except (EngineUnavailable, TimeoutError) as error:
            failure = str(error) or "it does not answer"
        if self.up == bool(failure):
            self.up = not failure
            extra = {"replica": self.name, "reason": failure or "it answers"}
            log.warning("a replica is up" if self.up else "a replica is down", extra=extra)
        if failure:
            self._end_calls()

    def _end_calls(self) -> None:
        now = asyncio.get_running_loop().time()
        for scope in self.calls:
            if not scope.expired():
                scope.reschedule(now)


@dataclass
class RetryBudget:
    """The retries that all calls together may still make."""

    left: float = MOST_SAVED_RETRIES

    def add(self) -> None:
        self.left = min(MOST_SAVED_RETRIES, self.left + RETRIES_PER_CALL)

    def take(self) -> bool:
        if self.left < 1.0:
            return False
        self.left -= 1.0
        return True


class ReplicatedEngine:
    """An Engine on replicas that know the model as ``model``. Make one with ``start``."""

    def __init__(self, model: str, replicas: Sequence[Replica]) -> None:
        self.model = model
        self.replicas = replicas
        self._retries = RetryBudget()
        self._watching: asyncio.Future[None] | None = None

    @classmethod
    async def start(cls, model: str, servers: Mapping[str, Connect]) -> Self:
        """Wait until one of the servers, by their names, serves, and go on looking at all of them.

        Raises what ``connect`` raises besides EngineUnavailable.
        """
        engine = cls(model, [Replica(name, connect) for name, connect in servers.items()])
        try:
            await engine._look()
            while not any(replica.up for replica in engine.replicas):
                await asyncio.sleep(LOOK_SECONDS)
                await engine._look()
        except BaseException:
            await engine.close()
            raise
        engine._watching = asyncio.ensure_future(engine._watch())
        return engine

    async def close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])
        await gather(replica.engine.close() for replica in self.replicas if replica.engine)

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
            one = sampling.sibling(index)
            [completion] = await self._call(
                conversation, lambda engine: engine.complete(conversation, one, schema=schema, priority=priority)
            )
            return completion

        return await gather(sibling(index) for index in range(n))

    async def stream(
        self, conversation: Conversation, sampling: Sampling, *, schema: JsonSchema | None = None, priority: int = 0
    ) -> AsyncGenerator[str | Completion, None]:
        tried: list[Replica] = []
        begun = False
        self._retries.add()
        while True:
            replica = self.place(conversation, tried)
            try:
                items = replica.serving().stream(conversation, sampling, schema=schema, priority=priority)
                async with aclosing(items):
                    while True:
                        async with replica.called():
                            item = await anext(items, None)
                        if item is None:
                            return
                        begun = True
                        yield item
            except EngineUnavailable:
                tried.append(replica)
                if begun or not await self._again(tried):
                    raise

    async def choose(
        self, conversation: Conversation, options: Sequence[str], *, lead: str = "", priority: int = 0
    ) -> Choice:
        return await self._call(
            conversation, lambda engine: engine.choose(conversation, options, lead=lead, priority=priority)
        )

    async def likelihood(self, conversation: Conversation, reply: str, *, priority: int = 0) -> Likelihood:
        return await self._call(conversation, lambda engine: engine.likelihood(conversation, reply, priority=priority))

    async def fit(self, conversation: Conversation, tokens: int = 1) -> None:
        await self._call(conversation, lambda engine: engine.fit(conversation, tokens))

    async def check(self) -> None:
        if not any(replica.up for replica in self.replicas):
            raise EngineUnavailable("no server of the engine answers")

    async def _call(self, conversation: Conversation, call: Callable[[Engine], Awaitable[T]]) -> T:
        tried: list[Replica] = []
        self._retries.add()
        while True:
            replica = self.place(conversation, tried)
            try:
                async with replica.called():
                    return await call(replica.serving())
            except EngineUnavailable:
                tried.append(replica)
                if not await self._again(tried):
                    raise

    def place(self, conversation: Conversation, tried: Sequence[Replica]) -> Replica:
        """Where to make a call that has failed on the replicas that were tried."""
        up = [replica for replica in self.replicas if replica.up]
        pool = [replica for replica in up if replica not in tried] or up or self.replicas
        prefix = beginning(conversation)
        ranked = sorted(pool, key=lambda replica: _weight(replica.name, prefix), reverse=True)
        in_progress = sum(len(replica.calls) for replica in pool)
        most = max(LEAST_LOAD, math.ceil(MOST_LOAD * (in_progress + 1) / len(pool)))
        return next(replica for replica in ranked if len(replica.calls) < most)

    async def _again(self, tried: Sequence[Replica]) -> bool:
        """Whether to make a call again that the last of the replicas has just failed; waits a moment before that."""
        if len(tried) == MOST_ATTEMPTS:
            return False
        await tried[-1].look()
        if tried[-1].up and not self._retries.take():
            return False
        await asyncio.sleep(random.uniform(0, LONGEST_PAUSE_SECONDS))  # noqa: S311 - nothing secret is drawn
        return True

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self._look()
            except Exception:  # a replica that came up as something else than the settings say
                log.exception("a replica cannot be used")

    async def _look(self) -> None:
        await gather(replica.look() for replica in self.replicas)


def beginning(conversation: Conversation) -> str:
    """The turns up to the first that is the user's: what all conversations of a program begin with."""
    texts = []
    for turn in conversation.turns():
        texts.append(turn.text)
        if turn.role == "user":
            break
    return "\n".join(texts)


def _weight(name: str, prefix: str) -> bytes:
    return hashlib.blake2b(f"{name}\n{prefix}".encode(), digest_size=8).digest()
