"""Admission: a permit before any work.

A request runs, waits its turn or is refused, and the refusal costs nothing. Places go to those that wait in the
order in which they came; one that leaves hands its place over, so a newcomer cannot slip in between.
"""

import asyncio
import math
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from service.errors import CallerLimit, DeadlineExceeded, Draining, Overloaded

LONGEST_RETRY_SECONDS = 60
NEWEST_WEIGHT = 0.2  # of the last program in the moving average of durations


@dataclass(frozen=True, slots=True)
class Ticket:
    """A place at work."""

    queued_seconds: float


class Admission:
    """At most ``max_programs`` at work and ``max_queued`` waiting; of one caller at most ``max_per_caller`` in both.

    A batch is one request of its caller, and takes none of these places. At most ``max_batches`` are at work.

    ``on_shed`` hears of each refusal: overloaded, draining, caller_limit or deadline.
    """

    def __init__(
        self,
        max_programs: int,
        max_queued: int,
        max_per_caller: int | None = None,
        max_batches: int = 1,
        *,
        on_shed: Callable[[str], None],
    ) -> None:
        self._max_programs = max_programs
        self._max_queued = max_queued
        self._max_per_caller = max_per_caller
        self._max_batches = max_batches
        self._on_shed = on_shed
        self._on_freed: Callable[[], None] = lambda: None
        self._running = 0
        self._batches = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._by_caller: Counter[str] = Counter()  # running and waiting; a caller with neither is absent
        self._mean_seconds: float | None = None
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def in_progress(self) -> int:
        """Requests at work."""
        return self._running

    @property
    def queued(self) -> int:
        """Requests waiting for a place."""
        return len(self._waiting)

    @property
    def draining(self) -> bool:
        """Whether new requests are refused because the service ends."""
        return self._draining

    def held_by(self, caller: str) -> int:
        """The caller's requests that run or wait."""
        return self._by_caller[caller]

    def watch(self, on_freed: Callable[[], None]) -> None:
        """Have ``on_freed`` called whenever a place has become free or was handed over."""
        self._on_freed = on_freed

    def drain(self) -> None:
        """Refuse every new request from now on; those at work or waiting go on."""
        self._draining = True

    async def idle(self) -> None:
        """Return once nothing is at work and nothing waits."""
        await self._idle.wait()

    @asynccontextmanager
    async def admit(self, caller: str, *, deadline: float | None = None) -> AsyncIterator[Ticket]:
        """Hold a place. ``deadline``, in the event loop's time, bounds the wait for it, not the work.

        Raises what ``check`` raises at once, and DeadlineExceeded while waiting.
        """
        self.check(caller)
        async with self.hold(caller, deadline=deadline) as ticket:
            yield ticket

    @asynccontextmanager
    async def hold(self, caller: str, *, deadline: float | None = None) -> AsyncIterator[Ticket]:
        """Hold a place for work that was accepted before, and is not refused now.

        Raises DeadlineExceeded while waiting.
        """
        with self._counted(caller):
            clock = asyncio.get_running_loop().time
            arrived = clock()
            await self._take_place(deadline)
            started = clock()
            try:
                yield Ticket(queued_seconds=started - arrived)
            finally:
                self._note_duration(clock() - started)
                self._hand_over()

    @contextmanager
    def batch(self, caller: str) -> Iterator[None]:
        """Hold a batch's place. Raises what ``check_batch`` raises."""
        self.check_batch(caller)
        self._batches += 1
        try:
            with self._counted(caller):
                yield
        finally:
            self._batches -= 1

    def check(self, caller: str) -> None:
        """Raise Draining, CallerLimit or Overloaded if ``caller`` would be refused now; nothing is held otherwise."""
        self._check_caller(caller)
        if self._running >= self._max_programs and len(self._waiting) >= self._max_queued:
            self._on_shed("overloaded")
            raise Overloaded(
                f"{self._running} requests are at work and {len(self._waiting)} wait",
                retry_after=self._retry_after(len(self._waiting) + 1, self._max_programs),
            )

    def check_batch(self, caller: str) -> None:
        """The same for a batch."""
        self._check_caller(caller)
        if self._batches >= self._max_batches:
            self._on_shed("overloaded")
            raise Overloaded(f"{self._batches} batches are at work", retry_after=LONGEST_RETRY_SECONDS)

    def _check_caller(self, caller: str) -> None:
        if self._draining:
            self._on_shed("draining")
            raise Draining("the service is shutting down and takes no new requests")
        if self._max_per_caller is not None and self._by_caller[caller] >= self._max_per_caller:
            self._on_shed("caller_limit")
            raise CallerLimit(
                f"this key has {self._max_per_caller} requests in progress, which is its limit",
                retry_after=self._retry_after(1, self._max_per_caller),
            )

    @contextmanager
    def _counted(self, caller: str) -> Iterator[None]:
        """Count a request of the caller from its arrival to its end."""
        self._by_caller[caller] += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._by_caller[caller] -= 1
            if not self._by_caller[caller]:
                del self._by_caller[caller]
            if not self._by_caller:
                self._idle.set()

    async def _take_place(self, deadline: float | None) -> None:
        if self._running < self._max_programs:
            self._running += 1
            return
        try:
            async with asyncio.timeout_at(deadline):
                await self._wait_turn()
        except TimeoutError:
            self._on_shed("deadline")
            raise DeadlineExceeded(
                "time ran out while the request waited for a place",
                retry_after=self._retry_after(len(self._waiting) + 1, self._max_programs),
            ) from None

    async def _wait_turn(self) -> None:
        place = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if not place.cancelled():  # the place came in the same moment as the cancellation
                self._hand_over()
            elif place in self._waiting:  # _hand_over may have passed it by already
                self._waiting.remove(place)
            raise

    def _hand_over(self) -> None:
        """Give a place that became free to the first that still waits."""
        while self._waiting:
            place = self._waiting.popleft()
            if not place.cancelled():
                place.set_result(None)
                break
        else:
            self._running -= 1
        self._on_freed()

    def _note_duration(self, seconds: float) -> None:
        before = seconds if self._mean_seconds is None else self._mean_seconds
        self._mean_seconds = before + NEWEST_WEIGHT * (seconds - before)

    def _retry_after(self, programs: int, places: int) -> int:
        """Whole seconds until that many programs should have ended, with that many places in use."""
        expected = (self._mean_seconds or 0.0) * programs / places
        return min(max(math.ceil(expected), 1), LONGEST_RETRY_SECONDS)
