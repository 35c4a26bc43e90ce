"""How much each caller keeps in the service's database, and how much that may be."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from service.errors import StorageFull, StoreUnavailable

Held = Callable[[str | None], Awaitable[int]]
"""Bytes that a caller keeps in one room; None for all callers."""

FRESH_SECONDS = 5.0
"""How long a sum is trusted. Other replicas may let the same caller keep more meanwhile."""
REFUSING_SECONDS = 1.0
"""How old the sum may be by which somebody is refused, so that a caller who asks again and again costs little."""
SHOW_SECONDS = 60.0


@dataclass
class _Account:
    """What one caller keeps. ``at``: when it was summed up. ``added``: since then. ``reserved``: what is being
    written."""

    held: int = 0
    at: float = -math.inf
    added: int = 0
    reserved: int = 0
    summing: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def total(self) -> int:
        return self.held + self.added + self.reserved


class Storage:
    """What callers keep: their jobs, files and stored traces.

    What was accepted is finished: the results of jobs and batches are counted but never refused, so a caller may pass
    its limit by them. A caller at its limit is refused before any work, and no other caller notices.

    rooms: what is kept in each, by its name in the metric.
    max_bytes: of one caller.
    on_refusal: called for each refusal.
    on_show: called with a room's name and its bytes, every minute.
    """

    def __init__(
        self,
        rooms: Mapping[str, Held],
        max_bytes: int,
        *,
        on_refusal: Callable[[], None] = lambda: None,
        on_show: Callable[[str, int], None] = lambda room, size: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rooms = rooms
        self._max_bytes = max_bytes
        self._on_refusal = on_refusal
        self._on_show = on_show
        self._clock = clock
        self._accounts: dict[str, _Account] = {}
        self._showing: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to show what is kept."""
        self._showing = asyncio.create_task(self._show())

    async def close(self) -> None:
        if self._showing is not None:
            self._showing.cancel()
            await asyncio.wait((self._showing,))

    async def check(self, caller: str, size: int = 1) -> None:
        """Raise StorageFull if the caller may not keep so many bytes more. Raises StoreUnavailable."""
        account = self._account(caller)
        for seconds in (FRESH_SECONDS, REFUSING_SECONDS):
            await self._sum_up(caller, account, seconds)
            if account.total + size <= self._max_bytes:
                return
        self._on_refusal()
        raise StorageFull(
            f"this key keeps {account.total} bytes of at most {self._max_bytes}: delete files, responses or stored "
            "traces that you no longer need, or wait until jobs expire"
        )

    @asynccontextmanager
    async def room(self, caller: str, size: int) -> AsyncIterator[None]:
        """Write so many bytes inside. They count as soon as it is begun. Raises what ``check`` raises."""
        await self.check(caller, size)
        account = self._account(caller)
        account.reserved += size
        try:
            yield
            account.added += size
        finally:
            account.reserved -= size

    def forget(self, caller: str) -> None:
        """Sum up again what the caller keeps: it has deleted something."""
        self._account(caller).at = -math.inf

    def _account(self, caller: str) -> _Account:
        return self._accounts.setdefault(caller, _Account())  # there are as many as keys

    async def _sum_up(self, caller: str, account: _Account, seconds: float) -> None:
        """Know what the caller keeps as of so many seconds ago."""
        if self._clock() - account.at < seconds:
            return
        async with account.summing:
            if self._clock() - account.at < seconds:  # somebody else has done it
                return
            at, added = self._clock(), account.added
            account.held = sum([await held(caller) for held in self._rooms.values()])
            account.added -= added
            account.at = at

    async def _show(self) -> None:
        while True:
            for name, held in self._rooms.items():
                with suppress(StoreUnavailable):
                    self._on_show(name, await held(None))
            await asyncio.sleep(SHOW_SECONDS)
