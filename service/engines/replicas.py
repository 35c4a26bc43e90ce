"""Several servers of one model as one engine: a program stays where its prefix is cached, and moves when that fails.

*Where*: rendezvous hashing (Thaler and Ravishankar 1998) of the turns that a conversation begins with, which all calls
of a program share, over the replicas that are up. One that has more than its share of the calls in progress is passed
over (consistent hashing with bounded loads, Mirrokni et al. 2016, arXiv 1608.01350).

*When it fails*: a call that fails has its replica looked at. A replica that does not answer then gives up its calls,
and they move to another. Where a replica is up, or no other is, a call is made again only as long as all these are a
small part of all calls, so that a fleet that fails is not asked for more than before. Nothing is made again of which
something was streamed.
"""

import asyncio
import hashlib
import logging
import math
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Self, TypeVar

from service.concurrency import gather
from service.engines.base import Choice, Completion, Engine, JsonSchema, Likelihood, Sampling
from service.engines.conversation import Conversation
from service.engines.relay import ChatBody, MessageEnd, MessagePiece, relay_of
from service.engines.served import ServedEngine
from service.errors import EngineUnavailable

log = logging.getLogger(__name__)
T = TypeVar("T")

MOST_ATTEMPTS = 3
LONGEST_PAUSE_SECONDS = 0.2
"""Before a call is made again. How long is drawn at random, so that the calls that failed together do not return so."""
RETRIES_PER_CALL = 0.1
MOST_SAVED_RETRIES = 10.0
"""What calls may save up, so that there are retries when many fail at once."""
MOST_FAILED = 5
FAILING_SECONDS = 3.0
"""A replica that says that it serves is left out, until it has shown it anew, once more calls than that have failed for
longer than that and none has succeeded."""
MOST_LOAD = 1.25
"""Times the mean of the calls in progress; a replica with fewer than LEAST_LOAD is never passed over."""
LEAST_LOAD = 8
LOOK_SECONDS = 1.0
"""Between two looks at each replica."""
LOOK_TIMEOUT_SECONDS = 3.0
CONNECT_TIMEOUT_SECONDS = 10.0
"""A look at a server that was down asks it for a few tokens, to find out what it can do."""


Connect = Callable[[], Awaitable[ServedEngine]]


@dataclass(eq=False)
class Replica:
    """One server. ``connect`` makes its engine, or raises EngineUnavailable; it is made anew whenever the replica comes
    up, for the server may be another by then. ``on_change`` is told whenever it comes up or goes down.

    ``wrong``: why the server can never be used as it is. ``calls``: the scopes of those in progress, by which they can
    be ended. ``failed``: the calls that failed since one succeeded, the first of them at ``failing_since``.
    """

    name: str
    connect: Connect
    on_change: Callable[[], None] = lambda: None
    engine: ServedEngine | None = None
    up: bool = False
    wrong: Exception | None = None
    calls: set[asyncio.Timeout] = field(default_factory=set)
    failed: int = 0
    failing_since: float = 0.0
    _reason: str = ""
    _looking: asyncio.Future[None] | None = None

    def check_settings(self) -> None:
        """Raise what makes the server unusable, if that is known."""
        if self.wrong is not None:
            raise self.wrong

    def serving(self) -> ServedEngine:
        if self.engine is None:
            raise EngineUnavailable("the engine's server has not answered yet")
        return self.engine

    @asynccontextmanager
    async def called(self) -> AsyncIterator[None]:
        """A scope of waiting for the engine; EngineUnavailable as soon as the replica is down."""
        try:
            async with self._scope():
                yield
        except EngineUnavailable:
            self._count_failure()
            raise
        self.failed = 0

    async def watch(self) -> None:
        """Look at the replica again and again."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Find out whether the replica can serve. Whoever asks meanwhile waits for the same answer."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.ensure_future(self._look())
        await asyncio.shield(self._looking)

    async def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])
        if self.engine is not None:
            await self.engine.close()

    @asynccontextmanager
    async def _scope(self) -> AsyncIterator[None]:
        scope = asyncio.timeout(None)
        self.calls.add(scope)
        try:
            async with scope:
                yield
        except TimeoutError as error:
            if not scope.expired():
                raise
            raise EngineUnavailable("the engine's server went down during a call") from error
        finally:
            self.calls.remove(scope)

    def _count_failure(self) -> None:
        now = asyncio.get_running_loop().time()
        if self.failed == 0:
            self.failing_since = now
        self.failed += 1
        if self.up and self.failed >= MOST_FAILED and now >= self.failing_since + FAILING_SECONDS:
            self._turn("its calls fail")

    async def _look(self) -> None:
        """A replica that was up is down once it has failed twice running."""
        failure = await (self._check() if self.up else self._connect())
        if failure and self.up:
            failure = await self._check()
        self._turn(failure)
        if failure:
            self._end_calls()

    async def _check(self) -> str:
        """Why the engine cannot serve; nothing if it can."""
        try:
            async with asyncio.timeout(LOOK_TIMEOUT_SECONDS):
                await self.serving().check()
        except (EngineUnavailable, TimeoutError) as error:
            return str(error) or "it does not answer"
        return ""

    async def _connect(self) -> str:
        """Why there is no engine; nothing if there is one."""
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
                before, self.engine = self.engine, await self.connect()
                if before is not None and before is not self.engine:
                    await before.close()
        except (EngineUnavailable, TimeoutError) as error:
            return str(error) or "it does not answer"
        except Exception as error:  # noqa: BLE001 - whatever it is, this server cannot be used, and others may
            self.wrong = error
            self.on_change()
            return str(error)
        return await self._check()

    def _turn(self, failure: str) -> None:
        """Be down for that reason, or up without any."""
        if failure and failure != self._reason:
            log.warning("a replica is down", extra={"replica": self.name, "reason": failure})
        elif not failure and not self.up:
            log.info("a replica is up", extra={"replica": self.name})
        changed, self.up, self._reason = self.up == bool(failure), not failure, failure
        if changed:
            self.failed = 0
            self.on_change()

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

    def take(self, *, overdraw: bool) -> bool:
        """Whether one more may be made; overdrawn, later calls have to make up for it first."""
        if self.left < 1.0 and not overdraw:
            return False
        self.left -= 1.0
        return True


class ReplicatedEngine:
    """An Engine on replicas that know the model as ``model``. Make one with ``start``."""

    def __init__(self, model: str, replicas: Sequence[Replica]) -> None:
        self.model = model
        self.replicas = replicas
        self._retries = RetryBudget()
        self._watching: list[asyncio.Future[None]] = []

    @property
    def backend(self) -> object:
        return self

    @property
    def takes_images(self) -> bool:
        """Whether all replicas that are up do: a call may be made on any of them."""
        known = [replica for replica in self.replicas if replica.engine is not None]
        asked = [replica for replica in known if replica.up] or known
        return all(replica.serving().takes_images for replica in asked)

    @classmethod
    async def start(cls, model: str, servers: Mapping[str, Connect]) -> Self:
        """Wait until one of the servers, by their names, serves, and go on looking at all of them.

        Until then what ``connect`` raises besides EngineUnavailable is raised here.
        """
        changed = asyncio.Event()
        engine = cls(model, [Replica(name, connect, changed.set) for name, connect in servers.items()])
        engine._watching = [asyncio.ensure_future(replica.watch()) for replica in engine.replicas]
        try:
            while not any(replica.up for replica in engine.replicas):
                await changed.wait()
                changed.clear()
                for replica in engine.replicas:
                    replica.check_settings()
        except BaseException:
            await engine.close()
            raise
        return engine

    async def close(self) -> None:
        for watching in self._watching:
            watching.cancel()
        if self._watching:
            await asyncio.wait(self._watching)
        await gather(replica.close() for replica in self.replicas)

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

    def stream(
        self, conversation: Conversation, sampling: Sampling, *, schema: JsonSchema | None = None, priority: int = 0
    ) -> AsyncGenerator[str | Completion, None]:
        return self._streamed(
            beginning(conversation),
            lambda engine: engine.stream(conversation, sampling, schema=schema, priority=priority),
        )

    async def choose(
        self, conversation: Conversation, options: Sequence[str], *, lead: str = "", priority: int = 0
    ) -> Choice:
        return await self._call(
            conversation, lambda engine: engine.choose(conversation, options, lead=lead, priority=priority)
        )

    async def likelihood(self, conversation: Conversation, reply: str, *, priority: int = 0) -> Likelihood:
        return await self._call(conversation, lambda engine: engine.likelihood(conversation, reply, priority=priority))

    def relay(
        self, asked: ChatBody, *, stream: bool, priority: int = 0
    ) -> AsyncGenerator[MessagePiece | MessageEnd, None]:
        prefix = _beginning((message["role"], [str(message["content"])]) for message in asked["messages"])
        return self._streamed(prefix, lambda engine: relay_of(engine).relay(asked, stream=stream, priority=priority))

    async def fit(self, conversation: Conversation, tokens: int = 1) -> None:
        await self._call(conversation, lambda engine: engine.fit(conversation, tokens))

    async def check(self) -> None:
        if not any(replica.up for replica in self.replicas):
            raise EngineUnavailable("none of its servers answers")

    async def _streamed(
        self, prefix: str, call: Callable[[Engine], AsyncGenerator[T, None]]
    ) -> AsyncGenerator[T, None]:
        tried: list[Replica] = []
        begun = False
        self._retries.add()
        while True:
            replica = self.place(prefix, tried)
            try:
                async with aclosing(call(replica.serving())) as items:
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

    async def _call(self, conversation: Conversation, call: Callable[[Engine], Awaitable[T]]) -> T:
        tried: list[Replica] = []
        self._retries.add()
        while True:
            replica = self.place(beginning(conversation), tried)
            try:
                async with replica.called():
                    return await call(replica.serving())
            except EngineUnavailable:
                tried.append(replica)
                if not await self._again(tried):
                    raise

    def place(self, prefix: str, tried: Sequence[Replica]) -> Replica:
        """Where to make a call with that beginning, which has failed on the replicas that were tried."""
        up = [replica for replica in self.replicas if replica.up]
        pool = [replica for replica in up if replica not in tried] or up or self.replicas
        ranked = sorted(pool, key=lambda replica: _weight(replica.name, prefix), reverse=True)
        in_progress = sum(len(replica.calls) for replica in pool)
        most = max(LEAST_LOAD, math.ceil(MOST_LOAD * (in_progress + 1) / len(pool)))
        return next(replica for replica in ranked if len(replica.calls) < most)  # ``most`` is above the pool's mean

    async def _again(self, tried: Sequence[Replica]) -> bool:
        """Whether to make a call again that the last of the replicas has just failed; waits a moment before that."""
        if len(tried) == MOST_ATTEMPTS:
            return False
        if tried[-1].up:
            await tried[-1].look()
        moves = not tried[-1].up and any(replica.up and replica not in tried for replica in self.replicas)
        if not self._retries.take(overdraw=moves):
            return False
        await asyncio.sleep(random.uniform(0, LONGEST_PAUSE_SECONDS))  # noqa: S311 - nothing secret is drawn
        return True


def beginning(conversation: Conversation) -> str:
    """The turns up to the first that is the user's: what all conversations of a program begin with."""
    return _beginning(
        (turn.role, [*(image.digest for image in turn.images), turn.text]) for turn in conversation.turns()
    )


def _beginning(turns: Iterable[tuple[str, Sequence[str]]]) -> str:
    parts: list[str] = []
    for role, said in turns:
        parts += said
        if role == "user":
            break
    return "\n".join(parts)


def _weight(name: str, prefix: str) -> bytes:
    return hashlib.blake2b(f"{name}\n{prefix}".encode(), digest_size=8).digest()
