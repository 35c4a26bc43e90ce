"""Where the lines of batches work: behind the requests that somebody waits for.

Three things hold them back. Their engine calls pass a gate, which is as wide as the other work allows; their programs'
lane ranks them last in the engine's own queue (refinement/scheduling.py); and only a few are at work at once. A call
that the engine has begun is never taken back: it is short.
"""

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any, TypeVar

from service.engines.gated import Gate, GatedEngine
from service.errors import DeadlineExceeded
from service.programs.admission import Admission, Ticket
from service.refinement.roles import Roles

T = TypeVar("T")

PROGRAMS_PER_CALL = 4
"""Interactive programs in progress per background call; there is always at least one such call."""
LINE_BYTES = 1_048_576
"""A line may always have this many. The parser blocks the event loop for the length of a line."""
REST = 4.0
"""After each background call its place stays empty for this many times the call's own length, so that it is used a
fifth of the time. A call may be a long prompt, and while that is read all others wait."""


class Background:
    """The places and the gate of the batch lane.

    admission: tells how much other work there is.
    max_programs: how many lines may be at work, and how many of their calls while nothing else is.
    max_seconds: from a batch's arrival; no line is begun later.
    max_line_bytes: how long a line may be.
    """

    def __init__(
        self,
        admission: Admission,
        max_programs: int,
        max_seconds: float = math.inf,
        max_line_bytes: int = LINE_BYTES,
    ) -> None:
        self.max_seconds = max_seconds
        self.max_line_bytes = max_line_bytes
        self.max_programs = max_programs
        self._queues: dict[int, deque[Any]] = {}  # by identity: two batches may have the same lines
        self._admission = admission
        self._places = asyncio.Semaphore(max_programs)
        self._gate = Gate(self._most_calls, self._rest)
        admission.watch(self._gate.open)

    @property
    def waiting(self) -> int:
        """Lines that nobody has begun."""
        return sum(map(len, self._queues.values()))

    @contextmanager
    def queue(self, lines: Iterable[T]) -> Iterator[deque[T]]:
        """The lines of a batch, to be taken from the left; what is in there counts as waiting."""
        queue = deque(lines)
        self._queues[id(queue)] = queue
        try:
            yield queue
        finally:
            del self._queues[id(queue)]

    def place(self) -> AbstractAsyncContextManager[None]:
        """A place at work; who waits gets one in the order of arrival, so that batches take turns."""
        return self._places

    @asynccontextmanager
    async def admit(self, caller: str, *, deadline: float | None = None) -> AsyncIterator[Ticket]:
        """Hold a place for a request that comes alone, as for a batch of one line.

        deadline: in the event loop's time; bounds the wait for the place, not the work.

        Raises what ``Admission.batch`` raises, and DeadlineExceeded while waiting.
        """
        clock = asyncio.get_running_loop().time
        arrived = clock()
        with self._admission.batch(caller):
            try:
                with self.queue([caller]):
                    async with asyncio.timeout_at(deadline):
                        await self._places.acquire()
            except TimeoutError:
                raise DeadlineExceeded("time ran out while the request waited for spare capacity") from None
            try:
                yield Ticket(queued_seconds=clock() - arrived)
            finally:
                self._places.release()

    def roles(self, roles: Roles) -> Roles:
        """The engines, behind the gate."""
        writer, critic, judge = (GatedEngine(e, self._gate) for e in (roles.writer, roles.critic, roles.judge))
        candidate = None if roles.candidate is None else GatedEngine(roles.candidate, self._gate)
        return Roles(writer, critic, judge, candidate)

    def _most_calls(self) -> int:
        if self._admission.queued:
            return 1
        if self._admission.in_progress:
            return min(max(self._admission.in_progress // PROGRAMS_PER_CALL, 1), self.max_programs)
        return self.max_programs

    def _rest(self) -> float:
        return REST if self._admission.in_progress or self._admission.queued else 0.0
