"""One server of several: whether it is up, its calls in progress, and how long it is cooling down.

*Down*: a replica is checked again and again, and at once when one of its calls fails. If it does not answer, its calls
end. If it answers but all its calls fail, it is probed, and is down only if the probe fails: the fault may lie in what
one caller asks for, and that must not take the replica from the others. A replica that is down is up again after a
probe succeeds.

*Busy*: a replica that refuses calls for now cools down for as long as it says. That does not count as a failure.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from service.engines.served import EngineUnusable, ServedEngine
from service.errors import EngineBusy, EngineUnavailable

log = logging.getLogger(__name__)

MOST_FAILED = 5
FAILING_SECONDS = 3.0
"""A replica that answers its checks is probed once MOST_FAILED calls have failed over FAILING_SECONDS and none has
succeeded."""
LOOK_SECONDS = 1.0
"""Between two checks of each replica."""
LOOK_TIMEOUT_SECONDS = 3.0
CONNECT_TIMEOUT_SECONDS = 180.0
"""A server that was down is probed with a few tokens, to find out what it can do. It may have to load its model
first."""
SILENT_SECONDS = 5.0
"""A server that has not answered its probe after this time is reported as not answering yet."""
UNUSABLE_LOOK_SECONDS = 5.0
"""Between two probes of a server that answers but cannot be used as it is."""
LONGEST_COOLDOWN_SECONDS = 60.0
"""A server is called again after this time, whatever it says."""

Connect = Callable[[], Awaitable[ServedEngine]]


@dataclass(eq=False)
class Replica:
    """One server.

    - ``connect``: makes its engine, or raises EngineUnavailable. Called whenever the replica comes up, since the
      server may be another by then.
    - ``on_change``: called whenever the replica comes up or goes down
    - ``wrong``: why the server can never be used
    - ``reason``: why the replica is down, if that is known
    - ``calls``: the scopes of the calls in progress, by which they can be ended
    - ``failed``: how many calls have failed since one succeeded, the first of them at ``failing_since``
    - ``cooldown_until``: when it takes calls again. Both times are the event loop's.
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
    cooldown_until: float = 0.0
    reason: str = ""
    _pause: float = LOOK_SECONDS
    _looking: asyncio.Future[None] | None = None
    _proving: asyncio.Future[None] | None = None

    def check_settings(self) -> None:
        """Raise what makes the server unusable, if that is known."""
        if self.wrong is not None:
            raise self.wrong

    def serving(self) -> ServedEngine:
        if self.engine is None:
            raise EngineUnavailable("the engine's server has not answered yet")
        return self.engine

    @property
    def cooldown(self) -> float:
        """The seconds until it takes calls again."""
        return max(0.0, self.cooldown_until - asyncio.get_running_loop().time())

    @property
    def is_cooling_down(self) -> bool:
        return self.cooldown > 0.0

    @asynccontextmanager
    async def guard_call(self, *, writes: bool = True) -> AsyncIterator[None]:
        """A scope in which the engine is called; raises EngineUnavailable as soon as the replica is down.

        ``writes``: whether the call asks the model, so that a success shows that the model can answer.
        """
        try:
            async with self._scope():
                yield
        except EngineBusy as error:
            self._cool_down(error)
            raise
        except EngineUnavailable:
            self._count_failure()
            raise
        if writes:
            self.failed = 0

    async def watch(self) -> None:
        """Check the replica again and again, also while it cools down if it may have calls in progress."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_SECONDS if self.up else max(self._pause, self.cooldown))

    async def look(self) -> None:
        """Find out whether the replica can serve. Concurrent callers share one check that begins after they ask.

        One that is under way may have been answered before the server went down, so only its bad news is enough.
        """
        before = self._looking
        if before is not None and not before.done():
            await asyncio.shield(before)
            if not self.up:
                return
        if self._looking is None or self._looking is before:
            self._looking = asyncio.ensure_future(self._look())
        await asyncio.shield(self._looking)

    async def close(self) -> None:
        for working in (self._looking, self._proving):
            if working is not None:
                working.cancel()
                await asyncio.wait([working])
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

    def _cool_down(self, error: EngineBusy) -> None:
        seconds = min(error.retry_after or 0, LONGEST_COOLDOWN_SECONDS)
        self.cooldown_until = max(self.cooldown_until, asyncio.get_running_loop().time() + seconds)

    def _count_failure(self) -> None:
        now = asyncio.get_running_loop().time()
        if self.failed == 0:
            self.failing_since = now
        self.failed += 1
        if self.up and self.failed >= MOST_FAILED and now >= self.failing_since + FAILING_SECONDS:
            self._prove()

    def _prove(self) -> None:
        """Have the server show again what it can do, unless it is at it."""
        if self._proving is None or self._proving.done():
            self._proving = asyncio.ensure_future(self._shown())

    async def _shown(self) -> None:
        """Down if the server cannot serve, and as good as new if it can."""
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
                engine = await self.connect()
            if engine is not self.engine:
                await engine.close()
        except EngineBusy as error:
            self._cool_down(error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the server fails at what it did before
            if self.up:
                self._turn(f"its calls fail: {error}")
        else:
            self.failed = 0

    async def _look(self) -> None:
        """A replica that was up is down once it has failed twice running."""
        self._pause = LOOK_SECONDS
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
            self._cool_down(error)
        except (EngineUnavailable, TimeoutError) as error:
            return str(error) or "it does not answer"
        return ""

    async def _connect(self) -> str:
        """Why there is no engine; nothing if there is one."""
        silent = asyncio.get_running_loop().call_later(SILENT_SECONDS, self._note_silence)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
                before, self.engine = self.engine, await self.connect()
                if before is not None and before is not self.engine:
                    await before.close()
        except EngineBusy as error:
            self._cool_down(error)
            return str(error)
        except EngineUnusable as error:
            self._pause = max(LOOK_SECONDS, UNUSABLE_LOOK_SECONDS)
            return str(error)
        except (EngineUnavailable, TimeoutError) as error:
            return str(error) or "it does not answer"
        except Exception as error:  # noqa: BLE001 - whatever it is, the server fails at what it did before
            self.wrong = error
            self.on_change()
            return str(error)
        finally:
            silent.cancel()
        return await self._check()

    def _note_silence(self) -> None:
        """Say why the replica is not up, where nothing better is known."""
        if not self.up and not self.reason:
            self._turn("the engine's server has not yet answered what it was asked first")

    def _turn(self, failure: str) -> None:
        """Be down for that reason, or up without any."""
        if failure and failure != self.reason:
            log.warning("a replica is down", extra={"replica": self.name, "reason": failure})
        elif not failure and not self.up:
            log.info("a replica is up", extra={"replica": self.name})
        changed, self.up, self.reason = self.up == bool(failure), not failure, failure
        if changed:
            self.failed = 0
            self.on_change()

    def _end_calls(self) -> None:
        now = asyncio.get_running_loop().time()
        for scope in self.calls:
            if not scope.expired():
                scope.reschedule(now)
