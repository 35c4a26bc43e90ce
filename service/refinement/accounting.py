"""Exact accounting: what each role's engine calls cost, and what the budget still allows.

A budget is a bound. Before a call begins, the most that it can cost is held for it, by ``Engine.upper_bound``; when it
ends, what it did not use is given back. So what is spent never passes the budget, however many calls are at work. A
call for which too little is left waits for those at work, first come first served, and is refused when nothing more can
come back. A text may then begin with fewer tokens than it was to have.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

from service.concurrency import settle
from service.engines.base import (
    PLAINLY,
    Call,
    CallResult,
    Completion,
    EngineDecorator,
    Piece,
    R,
    Reading,
    Sample,
    Usage,
    find_cost,
)
from service.engines.conversation import Conversation
from service.refinement import telemetry
from service.refinement.events import CallEnded, Event
from service.refinement.program import Budget
from service.refinement.roles import CallRole
from service.refinement.scheduling import Lane, priority

C = TypeVar("C", bound=Call[Any])
Emit = Callable[[Event], None]


class LimitReached(Exception):
    """The budget allows no further call."""


class BudgetSpent(LimitReached):
    """No tokens or calls are left for the call."""


class TimeIsUp(LimitReached):
    """The deadline is over, and with it the call."""


class Ledger:
    """One program's spending. Calls at work hold the tokens that they may still cost.

    ``arrival``, ``lane``: the program's.
    """

    def __init__(self, budget: Budget, emit: Emit, arrival: int = 0, lane: Lane = "interactive") -> None:
        self.usage: dict[CallRole, Usage] = {}
        self.budget = budget
        self._emit = emit
        self._arrival = arrival
        self._lane: Lane = lane
        self._attained = Usage()
        self._begun = 0
        self._held_tokens = 0
        self._queue = asyncio.Lock()
        self._given_back = asyncio.Event()
        self._whole_texts = Usage()

    @asynccontextmanager
    async def in_time(self) -> AsyncIterator[None]:
        """Cancel what is inside once the deadline is over; TimeIsUp then."""
        if asyncio.get_running_loop().time() >= self.budget.deadline:
            raise TimeIsUp
        try:
            async with asyncio.timeout_at(self.budget.deadline) as scope:
                yield
        except TimeoutError as error:
            if not scope.expired():
                raise
            raise TimeIsUp from error

    @property
    def priority(self) -> int:
        """The rank of the program's next call in the engine's queue."""
        return priority(self._arrival, self._attained, self._lane)

    @property
    def tokens(self) -> int:
        """What has been spent so far, by all roles."""
        return sum(usage.tokens for usage in self.usage.values())

    def calls_left(self, wanted: int) -> int:
        """How many of ``wanted`` calls may still begin. BudgetSpent if none."""
        left = wanted if self.budget.calls is None else min(wanted, self.budget.calls - self._begun)
        if left < 1:
            raise BudgetSpent
        return left

    @asynccontextmanager
    async def hold(self, bound: Usage, *, is_text: bool = False) -> AsyncIterator[int]:
        """Begin the calls of ``bound``, hold what they can cost at most, and give how many tokens they may write.

        BudgetSpent if the budget does not allow that. But a text may be shorter, if no other call is at work: it may
        have what is left, unless that is less than the program's texts usually take.
        """
        granted = bound.completion_tokens
        if self.budget.tokens is None:
            self._begin(bound.calls)
            yield granted
            return
        async with self._queue:
            while (found := self._grant(self.budget.tokens, bound, is_text)) is None:
                self._given_back.clear()
                await self._given_back.wait()
            granted = found
            self._begin(bound.calls)
            held = bound.prompt_tokens + granted
            self._held_tokens += held
        try:
            yield granted
        finally:
            self._held_tokens -= held
            self._given_back.set()

    def has_room_for(self, bound: Usage, given_back: int) -> bool:
        """Whether another text would have most of its tokens, once ``given_back`` tokens are returned."""
        if self.budget.calls is not None:
            return False
        if self.budget.tokens is None:
            return True
        least = bound.prompt_tokens + max(self._usual_tokens, bound.completion_tokens // 2)
        return least <= self.budget.tokens - self._attained.tokens - self._held_tokens + given_back

    def record(self, role: CallRole, usage: Usage, seconds: float, model: str) -> None:
        self.usage[role] = self.usage.get(role, Usage()) + usage
        self._attained += usage
        self._emit(CallEnded(role, usage, seconds, model))

    def record_whole_text(self, usage: Usage) -> None:
        self._whole_texts += usage

    @property
    def _usual_tokens(self) -> int:
        """How many tokens the program's whole texts had on average; 1 if there is none."""
        return max(1, self._whole_texts.completion_tokens // max(1, self._whole_texts.calls))

    def _begin(self, calls: int) -> None:
        if self.calls_left(calls) < calls:
            raise BudgetSpent
        self._begun += calls

    def _grant(self, tokens: int, bound: Usage, is_text: bool) -> int | None:
        """The tokens that a call may write; None if it has to wait for calls at work."""
        least = min(bound.completion_tokens, self._usual_tokens) if is_text else bound.completion_tokens
        left = tokens - self._attained.tokens - self._held_tokens
        if bound.tokens <= left:
            return bound.completion_tokens
        if bound.prompt_tokens + least > left + self._held_tokens:
            raise BudgetSpent
        return None if self._held_tokens else left - bound.prompt_tokens


@dataclass(frozen=True)
class MeteredEngine(EngineDecorator):
    """An Engine whose calls are entered in a ledger under one role and refused once the budget is spent. A reply that
    is cut is entered as far as it came. Only calls end at the deadline by themselves; writing.py ends streams.

    Its calls have the program's priority, which depends on what the program has cost so far, unless they state their
    own. ``as_text``: the engine gets conversations without token ids, because those in them are another engine's.
    """

    role: CallRole
    ledger: Ledger
    as_text: bool = False

    async def call(self, call: Call[R], *, priority: int | None = None) -> R:
        [result] = await self.call_together([call], priority=priority)
        return result

    async def call_together(self, calls: Sequence[Call[R]], *, priority: int | None = None) -> list[R]:
        """Make the calls side by side, or none of them: BudgetSpent if the budget does not allow them all."""
        calls = [self._read(call) for call in calls]
        async with self.ledger.in_time():
            bound = await self._bound(calls)
            async with self.ledger.hold(bound):
                return await settle(self._call(call, priority) for call in calls)

    async def stream(
        self, sample: Sample, *, priority: int | None = None, reading: Reading = PLAINLY
    ) -> AsyncGenerator[Piece, None]:
        """Stream a text. If the budget leaves it fewer tokens than it was to have, and cuts it, its finish reason is
        ``budget``."""
        sample = self._read(sample)
        bound = await self._bound([sample])
        async with self.ledger.hold(bound, is_text=True) as granted:
            if self.ledger.budget.tokens is not None:
                sample = replace(sample, sampling=replace(sample.sampling, max_tokens=granted, open_ended=False))
            with self._record(sample) as record:

                def cut(completion: Completion) -> None:
                    record(completion)
                    reading.on_cut(completion)

                metered = replace(reading, on_cut=cut)
                pieces = self.engine.stream(sample, priority=self._rank(priority), reading=metered)
                async with aclosing(pieces) as items:
                    async for item in items:
                        if isinstance(item, Completion):
                            record(item)
                            item = _name_cut(item, granted, bound)
                            if item.finish_reason != "budget":
                                self.ledger.record_whole_text(item.usage)
                        yield item

    async def fit(self, conversation: Conversation, tokens: int = 1) -> None:
        await self.engine.fit(conversation.as_text() if self.as_text else conversation, tokens)

    async def _call(self, call: Call[R], priority: int | None) -> R:
        with self._record(call) as record:
            if isinstance(call, Sample):
                return cast(R, await self._read_whole(call, self._rank(priority), record))
            try:
                result = await self.engine.call(call, priority=self._rank(priority))
            except asyncio.CancelledError as error:
                if (usage := find_cost(error)) is not None:
                    record(usage)
                raise
            record(result)
        return result

    async def _read_whole(
        self, sample: Sample, priority: int, record: Callable[[CallResult | Usage], None]
    ) -> Completion:
        """Read a reply as a stream, because only a stream says what it had cost when it is cut."""
        reading = Reading(interval=sample.sampling.max_tokens, on_cut=record)
        async with aclosing(self.engine.stream(sample, priority=priority, reading=reading)) as pieces:
            whole = [piece async for piece in pieces if isinstance(piece, Completion)]
        if not whole:
            raise RuntimeError("the engine ended a stream without its completion")
        record(whole[0])
        return whole[0]

    async def _bound(self, calls: Sequence[Call[Any]]) -> Usage:
        """The most that the calls can cost, together; only their number unless the budget has a limit of tokens."""
        if self.ledger.budget.tokens is None:
            return Usage(calls=len(calls))
        return sum([await self.engine.upper_bound(call) for call in calls], Usage())

    @contextmanager
    def _record(self, call: Call[Any]) -> Iterator[Callable[[CallResult | Usage], None]]:
        """Trace a call. Gives what enters its result, or what it cost without one."""
        started = time.perf_counter()

        def record(found: CallResult | Usage) -> None:
            usage = found if isinstance(found, Usage) else found.usage
            telemetry.called(usage, found if isinstance(found, Completion) else None)
            self.ledger.record(self.role, usage, time.perf_counter() - started, self.model)

        with telemetry.call(self.role, self.model, call):
            yield record

    def _read(self, call: C) -> C:
        return replace(call, conversation=call.conversation.as_text()) if self.as_text else call

    def _rank(self, priority: int | None) -> int:
        return self.ledger.priority if priority is None else priority


def _name_cut(completion: Completion, granted: int, bound: Usage) -> Completion:
    """The completion, with ``budget`` as its finish reason if that is what cut it."""
    shortened = granted < bound.completion_tokens and completion.usage.completion_tokens >= granted
    if completion.finish_reason == "length" and shortened:
        return replace(completion, finish_reason="budget")
    return completion
