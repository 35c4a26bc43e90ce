"""Exact accounting: what each role's engine calls cost, and what the budget still allows."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from service.engines.base import Call, CallResult, Completion, EngineDecorator, OnCut, Piece, R, Sample, Usage
from service.engines.conversation import Conversation
from service.engines.siblings import sample_siblings
from service.refinement import telemetry
from service.refinement.events import CallEnded, Event
from service.refinement.program import Budget
from service.refinement.roles import CallRole
from service.refinement.scheduling import Lane, priority

C = TypeVar("C", bound=Call[Any])
Emit = Callable[[Event], None]


class EnterResults(Protocol):
    """Enters the results of the calls that were made together."""

    def __call__(self, *results: CallResult) -> None: ...


class LimitReached(Exception):
    """The budget allows no further call."""


class BudgetSpent(LimitReached):
    """No tokens or calls are left for the call."""


class TimeIsUp(LimitReached):
    """The deadline is over, and with it the call."""


class Ledger:
    """One program's spending. Calls in progress hold the tokens that they may still write.

    ``arrival``, ``lane``: the program's.
    """

    def __init__(self, budget: Budget, emit: Emit, arrival: int = 0, lane: Lane = "interactive") -> None:
        self.usage: dict[CallRole, Usage] = {}
        self._budget = budget
        self._emit = emit
        self._arrival = arrival
        self._lane: Lane = lane
        self._attained = Usage()
        self._begun = 0
        self._held_tokens = 0

    @asynccontextmanager
    async def in_time(self) -> AsyncIterator[None]:
        """Cancel what is inside once the deadline is over; TimeIsUp then."""
        if asyncio.get_running_loop().time() >= self._budget.deadline:
            raise TimeIsUp
        try:
            async with asyncio.timeout_at(self._budget.deadline) as scope:
                yield
        except TimeoutError as error:
            if not scope.expired():
                raise
            raise TimeIsUp from error

    @property
    def priority(self) -> int:
        """The rank of the program's next call in the engine's queue."""
        return priority(self._arrival, self._attained, self._lane)

    def affordable(self, calls: int, max_tokens: int) -> tuple[int, int]:
        """How many of ``calls`` the budget allows, at least one, and how much each may write of ``max_tokens``.

        BudgetSpent if it allows none.
        """
        calls_left = calls if self._budget.calls is None else self._budget.calls - self._begun
        tokens_left = calls * max_tokens if self._budget.tokens is None else self._tokens_left(self._budget.tokens)
        allowed = min(calls, calls_left, tokens_left)
        if allowed < 1:
            raise BudgetSpent
        return allowed, min(max_tokens, tokens_left // allowed)

    @contextmanager
    def spending(self, calls: int, max_tokens: int) -> Iterator[int]:
        """Begin ``calls`` that want ``max_tokens`` each, and give what each may write.

        BudgetSpent if the budget does not allow all of the calls.
        """
        allowed, granted = self.affordable(calls, max_tokens)
        if allowed < calls:
            raise BudgetSpent
        self._begun += calls
        self._held_tokens += calls * granted
        try:
            yield granted
        finally:
            self._held_tokens -= calls * granted

    def record(self, role: CallRole, usage: Usage, seconds: float, model: str) -> None:
        self.usage[role] = self.usage.get(role, Usage()) + usage
        self._attained += usage
        self._emit(CallEnded(role, usage, seconds, model))

    def _tokens_left(self, tokens: int) -> int:
        return max(0, tokens - self._attained.tokens - self._held_tokens)


@dataclass(frozen=True)
class MeteredEngine(EngineDecorator):
    """An Engine whose calls are entered in a ledger under one role and refused once the budget is spent. A stream that
    is cut is entered as far as it came. Only calls end at the deadline by themselves; writing.py ends streams.

    Its calls have the program's priority, which depends on what the program has cost so far, unless they state their
    own. ``as_text``: the engine gets conversations without token ids, because those in them are another engine's.
    """

    role: CallRole
    ledger: Ledger
    as_text: bool = False

    async def call(self, call: Call[R], *, priority: int | None = None) -> R:
        with self._metered(call, 1) as (limited, record):
            async with self.ledger.in_time():
                result = await self.engine.call(limited, priority=self._rank(priority))
            record(result)
        return result

    async def sample_siblings(self, sample: Sample, n: int) -> list[Completion]:
        """Sample ``n`` replies side by side, entered together. The first failure cancels the others.

        BudgetSpent if the budget does not allow all of them.
        """
        with self._metered(sample, n) as (limited, record):
            completions = await sample_siblings(self.engine, limited, n, priority=self.ledger.priority)
            record(*completions)
        return completions

    async def stream(
        self, sample: Sample, *, priority: int | None = None, interval: int = 1, on_cut: OnCut | None = None
    ) -> AsyncGenerator[Piece, None]:
        with self._metered(sample, 1) as (limited, record):

            def cut(completion: Completion) -> None:
                record(completion)
                if on_cut is not None:
                    on_cut(completion)

            pieces = self.engine.stream(limited, priority=self._rank(priority), interval=interval, on_cut=cut)
            async with aclosing(pieces) as items:
                async for item in items:
                    if isinstance(item, Completion):
                        record(item)
                    yield item

    async def fit(self, conversation: Conversation, tokens: int = 1) -> None:
        await self.engine.fit(self._read(conversation), tokens)

    @contextmanager
    def _metered(self, call: C, calls: int) -> Iterator[tuple[C, EnterResults]]:
        """Hold the budget for ``calls`` of these and trace them. Gives the call to make and what enters its results."""
        started = time.perf_counter()
        call = replace(call, conversation=self._read(call.conversation))
        wanted = call.sampling.max_tokens if isinstance(call, Sample) else 1
        with self.ledger.spending(calls, wanted) as max_tokens:
            if isinstance(call, Sample):
                call = replace(call, sampling=replace(call.sampling, max_tokens=max_tokens))

            def record(*results: CallResult) -> None:
                usage = sum((result.usage for result in results), Usage())
                telemetry.called(usage, [result for result in results if isinstance(result, Completion)])
                self.ledger.record(self.role, usage, time.perf_counter() - started, self.model)

            with telemetry.call(self.role, self.model, calls, call):
                yield call, record

    def _read(self, conversation: Conversation) -> Conversation:
        return conversation.as_text() if self.as_text else conversation

    def _rank(self, priority: int | None) -> int:
        return self.ledger.priority if priority is None else priority
