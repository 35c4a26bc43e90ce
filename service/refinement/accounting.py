"""Exact accounting: what each role's engine calls cost, and what the budget still allows."""

import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from service.engines.base import Choice, Completion, Conversation, Engine, JsonSchema, Sampling, Usage
from service.refinement.events import CallEnded, CallRole, Event
from service.refinement.program import Budget

Emit = Callable[[Event], None]


class BudgetSpent(Exception):
    """The budget does not allow the next call."""


class Ledger:
    """One program's spending."""

    def __init__(self, budget: Budget, emit: Emit) -> None:
        self.usage: dict[CallRole, Usage] = {}
        self._budget = budget
        self._emit = emit
        self._begun = 0

    def affordable(self, calls: int) -> int:
        """As many of ``calls`` as the budget allows, at least one; BudgetSpent if it allows none."""
        if self._tokens_left() == 0:
            raise BudgetSpent
        if self._budget.calls is None:
            return calls
        if self._begun >= self._budget.calls:
            raise BudgetSpent
        return min(calls, self._budget.calls - self._begun)

    def begin(self, calls: int) -> None:
        """Count ``calls`` as begun; BudgetSpent if the budget does not allow them all."""
        if self.affordable(calls) < calls:
            raise BudgetSpent
        self._begun += calls

    def limited(self, sampling: Sampling) -> Sampling:
        left = self._tokens_left()
        return sampling if left is None or left >= sampling.max_tokens else replace(sampling, max_tokens=left)

    def record(self, role: CallRole, usage: Usage, seconds: float) -> None:
        self.usage[role] = self.usage.get(role, Usage()) + usage
        self._emit(CallEnded(role, usage, seconds))

    def _tokens_left(self) -> int | None:
        if self._budget.tokens is None:
            return None
        spent = sum((usage.prompt_tokens + usage.completion_tokens) for usage in self.usage.values())
        return max(0, self._budget.tokens - spent)


@dataclass(frozen=True)
class MeteredEngine:
    """An Engine whose calls are entered in a ledger under one role, and refused once the budget is spent."""

    engine: Engine
    role: CallRole
    ledger: Ledger
    priority: int = 0

    @property
    def model(self) -> str:
        return self.engine.model

    async def complete(
        self,
        conversation: Conversation,
        sampling: Sampling,
        *,
        n: int = 1,
        schema: JsonSchema | None = None,
        priority: int | None = None,
    ) -> Sequence[Completion]:
        self.ledger.begin(n)
        started = time.perf_counter()
        completions = await self.engine.complete(
            conversation, self.ledger.limited(sampling), n=n, schema=schema, priority=self._rank(priority)
        )
        usage = sum((completion.usage for completion in completions), Usage())
        self.ledger.record(self.role, usage, time.perf_counter() - started)
        return completions

    async def stream(
        self,
        conversation: Conversation,
        sampling: Sampling,
        *,
        schema: JsonSchema | None = None,
        priority: int | None = None,
    ) -> AsyncGenerator[str | Completion, None]:
        self.ledger.begin(1)
        started = time.perf_counter()
        items = self.engine.stream(
            conversation, self.ledger.limited(sampling), schema=schema, priority=self._rank(priority)
        )
        async with aclosing(items):
            async for item in items:
                if isinstance(item, Completion):
                    self.ledger.record(self.role, item.usage, time.perf_counter() - started)
                yield item

    async def choose(
        self, conversation: Conversation, options: Sequence[str], *, lead: str = "", priority: int | None = None
    ) -> Choice:
        self.ledger.begin(1)
        started = time.perf_counter()
        choice = await self.engine.choose(conversation, options, lead=lead, priority=self._rank(priority))
        self.ledger.record(self.role, choice.usage, time.perf_counter() - started)
        return choice

    async def fit(self, conversation: Conversation) -> None:
        await self.engine.fit(conversation)

    async def check(self) -> None:
        await self.engine.check()

    def _rank(self, priority: int | None) -> int:
        return self.priority if priority is None else priority
