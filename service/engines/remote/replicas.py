"""Several servers of one model as one engine: a program stays where its prefix is cached, and moves when that fails.

*Where*: rendezvous hashing (Thaler and Ravishankar 1998) of a conversation's first turns, which all calls of a program
share, over the replicas that are up. A replica with more than its share of the calls in progress is skipped (consistent
hashing with bounded loads, Mirrokni et al. 2016, arXiv 1608.01350).

*When a call fails*: its replica is checked. If the replica does not answer, its calls move to another. If it is up, or
no other is, the call is retried only while retries are a small share of all calls, so that a failing fleet does not get
more load than before. A stream that has yielded something is never retried.

*When a call is refused for now*: the busy replica cools down for as long as it says, and the call goes to another. If
all of them cool down, calls wait for the first that takes calls again, up to a bound. This does not count as a retry: a
replica that cools down gets no calls, so waiting adds no load, and counting it would end programs whose servers only
asked them to come back in a second.
"""

import asyncio
import hashlib
import math
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

from service.concurrency import gather
from service.engines.base import (
    PLAINLY,
    Call,
    Engine,
    Piece,
    R,
    Reading,
    Sample,
    Usage,
    Weigh,
    require_grammars,
)
from service.engines.conversation import Conversation
from service.engines.relay import ChatBody, MessageEnd, MessagePiece, require_relay
from service.engines.remote.replica import Connect, Replica
from service.errors import EngineBusy, EngineUnavailable

T = TypeVar("T")

MOST_ATTEMPTS = 3
LONGEST_PAUSE_SECONDS = 0.2
"""Before a retry. The pause is random, so that calls that failed together do not return together."""
LONGEST_WAIT_SECONDS = 30.0
"""For replicas that cool down, in all of one call."""
RETURN_SECONDS = 0.5
"""The calls that waited return spread over this time, so that the first of them find out for all whether the replica
takes calls."""
RETRIES_PER_CALL = 0.1
MOST_SAVED_RETRIES = 10.0
"""How many unused retries are saved up, for when many calls fail at once."""
MOST_LOAD = 1.25
"""Times the mean of the calls in progress; a replica with fewer than LEAST_LOAD is never skipped."""
LEAST_LOAD = 8


@dataclass
class RetryBudget:
    """How many retries all calls together may still make."""

    left: float = MOST_SAVED_RETRIES

    def add(self) -> None:
        self.left = min(MOST_SAVED_RETRIES, self.left + RETRIES_PER_CALL)

    def take(self, *, overdraw: bool) -> bool:
        """Whether one more may be made. An overdraft has to be made up for by later calls."""
        if self.left < 1.0 and not overdraw:
            return False
        self.left -= 1.0
        return True


@dataclass(frozen=True, slots=True)
class Attempt:
    """How far one call has come.

    ``key``: calls with the same key go to the same replica. ``wait_deadline``: when it stops waiting for busy replicas,
    by the event loop's clock. ``failed``: the replicas on which it has failed, in order.
    """

    key: str
    wait_deadline: float
    failed: list[Replica] = field(default_factory=list)


class ReplicatedEngine:
    """An Engine on replicas that know the model as ``model``. Make one with ``start``."""

    def __init__(self, model: str, replicas: Sequence[Replica]) -> None:
        self.model = model
        self.replicas = replicas
        self._retries = RetryBudget()
        self._watching: list[asyncio.Future[None]] = []
        self._changed = asyncio.Event()

    @property
    def backend(self) -> object:
        return self

    @property
    def takes_images(self) -> bool:
        """Whether all replicas that are up do: a call may be made on any of them."""
        return all(engine.takes_images for engine in self._asked())

    @property
    def takes_grammars(self) -> bool:
        return all(engine.takes_grammars for engine in self._asked())

    @classmethod
    async def start(cls, model: str, servers: Mapping[str, Connect]) -> Self:
        """Wait until one of the servers, given by their names, can serve, and keep checking all of them.

        Raises what ``wait_until_serving`` raises.
        """
        engine = cls.open(model, servers)
        try:
            await engine.wait_until_serving()
        except BaseException:
            await engine.close()
            raise
        return engine

    @classmethod
    def open(cls, model: str, servers: Mapping[str, Connect]) -> Self:
        """Begin to check the servers, given by their names; none of them has to serve yet."""
        changed = asyncio.Event()
        engine = cls(model, [Replica(name, connect, changed.set) for name, connect in servers.items()])
        engine._changed = changed
        engine._watching = [asyncio.ensure_future(replica.watch()) for replica in engine.replicas]
        return engine

    async def wait_until_serving(self) -> None:
        """Wait until one of the servers serves. Raises what ``connect`` raises until then besides EngineUnavailable."""
        while not any(replica.up for replica in self.replicas):
            await self._changed.wait()
            self._changed.clear()
            for replica in self.replicas:
                replica.check_settings()

    @property
    def missing(self) -> str:
        """Why no server can serve, if that is known; without their addresses, which only the operator may see."""
        if any(replica.up for replica in self.replicas):
            return ""
        if len(self.replicas) == 1:
            return self.replicas[0].reason
        reasons = [(number, replica.reason) for number, replica in enumerate(self.replicas, 1) if replica.reason]
        return "; ".join(f"server {number}: {reason}" for number, reason in reasons)

    async def close(self) -> None:
        for watching in self._watching:
            watching.cancel()
        if self._watching:
            await asyncio.wait(self._watching)
        await gather(replica.close() for replica in self.replicas)

    async def call(self, call: Call[R], *, priority: int = 0) -> R:
        return await self._route(_affinity(call), lambda engine: engine.call(call, priority=priority))

    def stream(self, sample: Sample, *, priority: int = 0, reading: Reading = PLAINLY) -> AsyncGenerator[Piece, None]:
        return self._route_stream(
            _affinity(sample),
            lambda engine: engine.stream(sample, priority=priority, reading=reading),
        )

    def relay(
        self, chat: ChatBody, *, stream: bool, priority: int = 0
    ) -> AsyncGenerator[MessagePiece | MessageEnd, None]:
        key = _join_turns((message["role"], [str(message["content"])]) for message in chat["messages"])
        return self._route_stream(
            key, lambda engine: require_relay(engine).relay(chat, stream=stream, priority=priority)
        )

    async def fit(self, conversation: Conversation, tokens: int = 1) -> None:
        await self._route(first_turns(conversation), lambda engine: engine.fit(conversation, tokens), writes=False)

    async def upper_bound(self, call: Call[Any]) -> Usage:
        return await self._route(_affinity(call), lambda engine: engine.upper_bound(call), writes=False)

    async def prove(self, grammar: str) -> None:
        require_grammars(self)
        await gather(engine.prove(grammar) for engine in self._asked())

    async def check(self) -> None:
        if not any(replica.up for replica in self.replicas):
            missing = self.missing
            raise EngineUnavailable("none of its servers answers" + (f": {missing}" if missing else ""))

    def _asked(self) -> Sequence[Engine]:
        """The engines of the replicas that are up, or of all that are known."""
        known = [replica for replica in self.replicas if replica.engine is not None]
        return [replica.serving() for replica in known if replica.up] or [replica.serving() for replica in known]

    async def _route_stream(
        self, key: str, call: Callable[[Engine], AsyncGenerator[T, None]]
    ) -> AsyncGenerator[T, None]:
        attempt = self._begin(key)
        begun = False
        while True:
            replica = await self._wait_for_replica(attempt)
            try:
                async with aclosing(call(replica.serving())) as items:
                    while True:
                        async with replica.guard_call():
                            item = await anext(items, None)
                        if item is None:
                            return
                        begun = True
                        yield item
            except EngineUnavailable as error:
                if begun or not await self._should_retry(attempt, replica, error):
                    raise

    async def _route(self, key: str, call: Callable[[Engine], Awaitable[T]], *, writes: bool = True) -> T:
        attempt = self._begin(key)
        while True:
            replica = await self._wait_for_replica(attempt)
            try:
                async with replica.guard_call(writes=writes):
                    return await call(replica.serving())
            except EngineUnavailable as error:
                if not await self._should_retry(attempt, replica, error):
                    raise

    def _begin(self, key: str) -> Attempt:
        self._retries.add()
        return Attempt(key, asyncio.get_running_loop().time() + LONGEST_WAIT_SECONDS)

    async def _wait_for_replica(self, attempt: Attempt) -> Replica:
        """Wait for a replica that takes calls; EngineBusy if that would be too late."""
        while (cooldown := min(replica.cooldown for replica in self._pool(attempt.failed))) > 0.0:
            if asyncio.get_running_loop().time() + cooldown > attempt.wait_deadline:
                raise EngineBusy("the engine's servers have too much to do", retry_after=math.ceil(cooldown))
            await asyncio.sleep(cooldown + random.uniform(0, RETURN_SECONDS))  # noqa: S311 - nothing secret is drawn
        return self.pick(attempt.key, attempt.failed)

    def pick(self, key: str, failed: Sequence[Replica]) -> Replica:
        """The replica for a call with that key, which has failed on some replicas."""
        pool = self._pool(failed)
        pool = [replica for replica in pool if not replica.is_cooling_down] or pool
        ranked = sorted(pool, key=lambda replica: _hash(replica.name, key), reverse=True)
        in_progress = sum(len(replica.calls) for replica in pool)
        most = max(LEAST_LOAD, math.ceil(MOST_LOAD * (in_progress + 1) / len(pool)))
        return next(replica for replica in ranked if len(replica.calls) < most)  # ``most`` is above the pool's mean

    def _pool(self, failed: Sequence[Replica]) -> Sequence[Replica]:
        """The replicas that are up and on which the call has not failed, if there are any."""
        up = [replica for replica in self.replicas if replica.up]
        return [replica for replica in up if replica not in failed] or up or self.replicas

    async def _should_retry(self, attempt: Attempt, replica: Replica, error: EngineUnavailable) -> bool:
        """Whether to retry a call that has just failed on ``replica``; waits a moment before that."""
        if isinstance(error, EngineBusy):
            return True
        attempt.failed.append(replica)
        if len(attempt.failed) == MOST_ATTEMPTS:
            return False
        if replica.up:
            await replica.look()
        moves = not replica.up and any(other.up and other not in attempt.failed for other in self.replicas)
        if not self._retries.take(overdraw=moves):
            return False
        await asyncio.sleep(random.uniform(0, LONGEST_PAUSE_SECONDS))  # noqa: S311 - nothing secret is drawn
        return True


def _affinity(call: Call[Any]) -> str:
    """The key that sends a program's calls to the same replica. Weighing a reply reads no prefix from the cache, which
    keeps no probabilities, so those calls are spread by their replies."""
    start = first_turns(call.conversation)
    return f"{start}\n{call.reply}" if isinstance(call, Weigh) else start


def first_turns(conversation: Conversation) -> str:
    """The turns up to the first user turn: all conversations of a program begin with them."""
    return _join_turns(
        (turn.role, [*(image.digest for image in turn.images), turn.text]) for turn in conversation.turns()
    )


def _join_turns(turns: Iterable[tuple[str, Sequence[str]]]) -> str:
    parts: list[str] = []
    for role, said in turns:
        parts += said
        if role == "user":
            break
    return "\n".join(parts)


def _hash(name: str, key: str) -> bytes:
    return hashlib.blake2b(f"{name}\n{key}".encode(), digest_size=8).digest()
