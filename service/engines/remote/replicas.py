"""Several servers of one model as one engine: a program stays where its prefix is cached, and moves when that fails.

*Where*: rendezvous hashing (Thaler and Ravishankar 1998) of the turns that a conversation begins with, which all calls
of a program share, over the replicas that are up. One that has more than its share of the calls in progress is passed
over (consistent hashing with bounded loads, Mirrokni et al. 2016, arXiv 1608.01350).

*When it fails*: a call that fails has its replica looked at. A replica that does not answer then gives up its calls,
and they move to another. Where a replica is up, or no other is, a call is made again only as long as all these are a
small part of all calls, so that a fleet that fails is not asked for more than before. Nothing is made again of which
something was streamed.

*When it is refused for now*: a busy replica rests for as long as it says, and the call goes to another. Where all of
them rest, calls wait until the first of them takes calls again, but no longer than a bound. None of that is a retry: a
replica that rests is asked for nothing, so waiting adds no load, and counting it would end programs whose servers only
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
from service.engines.base import Call, Engine, Piece, R, Sample, Weigh
from service.engines.conversation import Conversation
from service.engines.relay import ChatBody, MessageEnd, MessagePiece, relay_of
from service.engines.remote.replica import Connect, Replica
from service.errors import EngineBusy, EngineUnavailable

T = TypeVar("T")

MOST_ATTEMPTS = 3
LONGEST_PAUSE_SECONDS = 0.2
"""Before a call is made again. How long is drawn at random, so that the calls that failed together do not return so."""
LONGEST_WAIT_SECONDS = 30.0
"""For replicas that rest, in all of one call."""
RETURN_SECONDS = 0.5
"""Over so long those that waited come back, so that the first of them find out for all whether they may."""
RETRIES_PER_CALL = 0.1
MOST_SAVED_RETRIES = 10.0
"""What calls may save up, so that there are retries when many fail at once."""
MOST_LOAD = 1.25
"""Times the mean of the calls in progress; a replica with fewer than LEAST_LOAD is never passed over."""
LEAST_LOAD = 8


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


@dataclass(frozen=True, slots=True)
class Course:
    """One call's way to an answer. ``key``: calls of the same one go to the same replica. ``failed``: where it has
    failed, in that order. ``patient_until``: how long it waits for busy replicas, by the event loop's clock."""

    key: str
    patient_until: float
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
        known = [replica for replica in self.replicas if replica.engine is not None]
        asked = [replica for replica in known if replica.up] or known
        return all(replica.serving().takes_images for replica in asked)

    @classmethod
    async def start(cls, model: str, servers: Mapping[str, Connect]) -> Self:
        """Wait until one of the servers, by their names, serves, and go on looking at all of them.

        Raises what ``joined`` raises.
        """
        engine = cls.open(model, servers)
        try:
            await engine.joined()
        except BaseException:
            await engine.close()
            raise
        return engine

    @classmethod
    def open(cls, model: str, servers: Mapping[str, Connect]) -> Self:
        """Begin to look at the servers, by their names; none of them has to serve yet."""
        changed = asyncio.Event()
        engine = cls(model, [Replica(name, connect, changed.set) for name, connect in servers.items()])
        engine._changed = changed
        engine._watching = [asyncio.ensure_future(replica.watch()) for replica in engine.replicas]
        return engine

    async def joined(self) -> None:
        """Wait until one of the servers serves. Raises what ``connect`` raises until then besides EngineUnavailable."""
        while not any(replica.up for replica in self.replicas):
            await self._changed.wait()
            self._changed.clear()
            for replica in self.replicas:
                replica.check_settings()

    @property
    def missing(self) -> str:
        """Why no server serves, as far as that is known; without their addresses, which are the operator's."""
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

    def stream(self, sample: Sample, *, priority: int = 0) -> AsyncGenerator[Piece, None]:
        return self._route_stream(_affinity(sample), lambda engine: engine.stream(sample, priority=priority))

    def relay(
        self, asked: ChatBody, *, stream: bool, priority: int = 0
    ) -> AsyncGenerator[MessagePiece | MessageEnd, None]:
        key = _beginning((message["role"], [str(message["content"])]) for message in asked["messages"])
        return self._route_stream(key, lambda engine: relay_of(engine).relay(asked, stream=stream, priority=priority))

    async def fit(self, conversation: Conversation, tokens: int = 1) -> None:
        await self._route(beginning(conversation), lambda engine: engine.fit(conversation, tokens), writes=False)

    async def check(self) -> None:
        if not any(replica.up for replica in self.replicas):
            missing = self.missing
            raise EngineUnavailable("none of its servers answers" + (f": {missing}" if missing else ""))

    async def _route_stream(
        self, key: str, call: Callable[[Engine], AsyncGenerator[T, None]]
    ) -> AsyncGenerator[T, None]:
        course = self._begin(key)
        begun = False
        while True:
            replica = await self._next(course)
            try:
                async with aclosing(call(replica.serving())) as items:
                    while True:
                        async with replica.called():
                            item = await anext(items, None)
                        if item is None:
                            return
                        begun = True
                        yield item
            except EngineUnavailable as error:
                if begun or not await self._again(course, replica, error):
                    raise

    async def _route(self, key: str, call: Callable[[Engine], Awaitable[T]], *, writes: bool = True) -> T:
        course = self._begin(key)
        while True:
            replica = await self._next(course)
            try:
                async with replica.called(writes=writes):
                    return await call(replica.serving())
            except EngineUnavailable as error:
                if not await self._again(course, replica, error):
                    raise

    def _begin(self, key: str) -> Course:
        self._retries.add()
        return Course(key, asyncio.get_running_loop().time() + LONGEST_WAIT_SECONDS)

    async def _next(self, course: Course) -> Replica:
        """Where to make the call, as soon as somewhere it can be made; EngineBusy if that would be too late."""
        while (rest := min(replica.resting for replica in self._pool(course.failed))) > 0.0:
            if asyncio.get_running_loop().time() + rest > course.patient_until:
                raise EngineBusy("the engine's servers have too much to do", retry_after=math.ceil(rest))
            await asyncio.sleep(rest + random.uniform(0, RETURN_SECONDS))  # noqa: S311 - nothing secret is drawn
        return self.place(course.key, course.failed)

    def place(self, key: str, failed: Sequence[Replica]) -> Replica:
        """Where to make a call of that key, which has failed on some replicas."""
        pool = self._pool(failed)
        pool = [replica for replica in pool if not replica.resting] or pool
        ranked = sorted(pool, key=lambda replica: _weight(replica.name, key), reverse=True)
        in_progress = sum(len(replica.calls) for replica in pool)
        most = max(LEAST_LOAD, math.ceil(MOST_LOAD * (in_progress + 1) / len(pool)))
        return next(replica for replica in ranked if len(replica.calls) < most)  # ``most`` is above the pool's mean

    def _pool(self, failed: Sequence[Replica]) -> Sequence[Replica]:
        """The replicas that are up and that the call has not failed on, as far as there are any."""
        up = [replica for replica in self.replicas if replica.up]
        return [replica for replica in up if replica not in failed] or up or self.replicas

    async def _again(self, course: Course, replica: Replica, error: EngineUnavailable) -> bool:
        """Whether to make a call again that a replica has just failed; waits a moment before that."""
        if isinstance(error, EngineBusy):
            return True
        course.failed.append(replica)
        if len(course.failed) == MOST_ATTEMPTS:
            return False
        if replica.up:
            await replica.look()
        moves = not replica.up and any(other.up and other not in course.failed for other in self.replicas)
        if not self._retries.take(overdraw=moves):
            return False
        await asyncio.sleep(random.uniform(0, LONGEST_PAUSE_SECONDS))  # noqa: S311 - nothing secret is drawn
        return True


def _affinity(call: Call[Any]) -> str:
    """Calls of the same affinity go to the same replica. To weigh a reply no prefix is read from the cache, which
    keeps no probabilities, and the reply may be all that differs."""
    start = beginning(call.conversation)
    return f"{start}\n{call.reply}" if isinstance(call, Weigh) else start


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


def _weight(name: str, key: str) -> bytes:
    return hashlib.blake2b(f"{name}\n{key}".encode(), digest_size=8).digest()
