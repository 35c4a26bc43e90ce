"""Exact accounting: what each role's engine calls cost, and what the budget still allows."""

import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, replace

from service.engines.base import Choice, Completion, Engine, JsonSchema, Likelihood, Piece, Sampling, Usage
from service.engines.conversation import Conversation
from service.refinement import telemetry
from service.refinement.events import CallEnded, Event
from service.refinement.program import Budget
from service.refinement.roles import CallRole
from service.refinement.scheduling import Lane, priority

Emit = Callable[[Event], None]


class BudgetSpent(Exception):
    """The budget does not allow the next call."""


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
class MeteredEngine:
    """An Engine whose calls are entered in a ledger under one role, refused once the budget is spent, and ranked by
    what their program has cost so far, unless they state a priority of their own.

    ``as_text``: conversations are given to it without token ids, which are another engine's.
    """

    engine: Engine
    role: CallRole
    ledger: Ledger
    as_text: bool = False

    @property
    def model(self) -> str:
        return self.engine.model

    @property
    def backend(self) -> object:
        return self.engine.backend

    @property
    def takes_images(self) -> bool:
        return self.engine.takes_images

    async def complete(
        self,
        conversation: Conversation,
        sampling: Sampling,
        *,
        n: int = 1,
        schema: JsonSchema | None = None,
        priority: int | None = None,
    ) -> Sequence[Completion]:
        started = time.perf_counter()
        with self.ledger.spending(n, sampling.max_tokens) as max_tokens:
            limited = replace(sampling, max_tokens=max_tokens)
            with telemetry.call(self.role, self.model, n, limited):
                completions = await self.engine.complete(
                    self._read(conversation), limited, n=n, schema=schema, priority=self._rank(priority)
                )
                usage = sum((completion.usage for completion in completions), Usage())
                self._record(usage, started, completions)
        return completions

    async def stream(
        self,
        conversation: Conversation,
        sampling: Sampling,
        *,
        schema: JsonSchema | None = None,
        priority: int | None = None,
    ) -> AsyncGenerator[Piece, None]:
        started = time.perf_counter()
        with self.ledger.spending(1, sampling.max_tokens) as max_tokens:
            limited = replace(sampling, max_tokens=max_tokens)
            items = self.engine.stream(self._read(conversation), limited, schema=schema, priority=self._rank(priority))
            with telemetry.call(self.role, self.model, 1, limited):
                async with aclosing(items):
                    async for item in items:
                        if isinstance(item, Completion):
                            self._record(item.usage, started, [item])
                        yield item

    async def choose(
        self, conversation: Conversation, options: Sequence[str], *, lead: str = "", priority: int | None = None
    ) -> Choice:
        started = time.perf_counter()
        with self.ledger.spending(1, max_tokens=1), telemetry.call(self.role, self.model, 1):
            choice = await self.engine.choose(
                self._read(conversation), options, lead=lead, priority=self._rank(priority)
            )
            self._record(choice.usage, started)
        return choice

    async def likelihood(self, conversation: Conversation, reply: str, *, priority: int | None = None) -> Likelihood:
        started = time.perf_counter()
        with self.ledger.spending(1, max_tokens=1), telemetry.call(self.role, self.model, 1):
            likelihood = await self.engine.likelihood(self._read(conversation), reply, priority=self._rank(priority))
            self._record(likelihood.usage, started)
        return likelihood

    async def fit(self, conversation: Conversation, tokens: int = 1) -> None:
        await self.engine.fit(self._read(conversation), tokens)

    async def check(self) -> None:
        await self.engine.check()

    def _read(self, conversation: Conversation) -> Conversation:
        return conversation.as_text() if self.as_text else conversation

    def _record(self, usage: Usage, started: float, completions: Sequence[Completion] = ()) -> None:
        telemetry.called(usage, completions)
        self.ledger.record(self.role, usage, time.perf_counter() - started, self.engine.model)

    def _rank(self, priority: int | None) -> int:
        return self.ledger.priority if priority is None else priority
