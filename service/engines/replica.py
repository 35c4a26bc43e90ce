"""One server of several: whether it is up, the calls in progress there, and how long it is to be left alone.

*Down*: a replica is looked at again and again, and at once when a call failed there. One that does not answer gives up
its calls. So is one down that answers when it is looked at, but whose calls all fail. It is up again once it has shown
anew what it can do.

*Busy*: one that refuses calls for now rests for as long as it says. That is no failure.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from service.engines.served import ServedEngine
from service.errors import EngineBusy, EngineUnavailable

log = logging.getLogger(__name__)

MOST_FAILED = 5
FAILING_SECONDS = 3.0
"""A replica that says that it serves is left out, until it has shown it anew, once more calls than that have failed for
longer than that and none has succeeded."""
LOOK_SECONDS = 1.0
"""Between two looks at each replica."""
LOOK_TIMEOUT_SECONDS = 3.0
CONNECT_TIMEOUT_SECONDS = 10.0
"""A look at a server that was down asks it for a few tokens, to find out what it can do."""
LONGEST_REST_SECONDS = 60.0
"""Whatever a server says, it is asked again after that."""

Connect = Callable[[], Awaitable[ServedEngine]]


@dataclass(eq=False)
class Replica:
    """One server. ``connect`` makes its engine, or raises EngineUnavailable; it is made anew whenever the replica comes
    up, for the server may be another by then. ``on_change`` is told whenever it comes up or goes down.

    ``wrong``: why the server can never be used as it is. ``calls``: the scopes of those in progress, by which they can
    be ended. ``failed``: the calls that failed since one succeeded, the first of them at ``failing_since``.
    ``rests_until``: when it takes calls again; both by the event loop's clock.
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
    rests_until: float = 0.0
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

    @property
    def resting(self) -> float:
        """The seconds that it is to be left alone."""
        return max(0.0, self.rests_until - asyncio.get_running_loop().time())

    @asynccontextmanager
    async def called(self) -> AsyncIterator[None]:
        """A scope of waiting for the engine; EngineUnavailable as soon as the replica is down."""
        try:
            async with self._scope():
                yield
        except EngineBusy as error:
            self._rest(error)
            raise
        except EngineUnavailable:
            self._count_failure()
            raise
        self.failed = 0

    async def watch(self) -> None:
        """Look at the replica again and again, also while it rests if there may be calls at work."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_SECONDS if self.up else max(LOOK_SECONDS, self.resting))

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

    def _rest(self, error: EngineBusy) -> None:
        seconds = min(error.retry_after or 0, LONGEST_REST_SECONDS)
        self.rests_until = max(self.rests_until, asyncio.get_running_loop().time() + seconds)

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
        except EngineBusy as error:
            self._rest(error)
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
        except EngineBusy as error:
            self._rest(error)
            return str(error)
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
