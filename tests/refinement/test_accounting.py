"""What a program spends, entered call by call, and the calls that its budget refuses."""

import asyncio
import math
from contextlib import aclosing
from dataclasses import dataclass, field

import pytest

from service.engines.base import Call, Choose, Completion, R, Sample, Sampling, Usage
from service.engines.scripted import EngineCall, Script, ScriptedEngine
from service.refinement.accounting import BudgetSpent, Ledger, MeteredEngine
from service.refinement.events import CallEnded, Event
from service.refinement.program import Budget
from service.refinement.scheduling import QUANTUM_TOKENS
from tests.support.scripts import REQUEST

FIVE = "one two three four five"
SAMPLING = Sampling(max_tokens=100)


def ledger(
    tokens: int | None = None, calls: int | None = None, told: list[Event] | None = None, arrival: int = 0
) -> Ledger:
    events = [] if told is None else told
    return Ledger(Budget(deadline=math.inf, tokens=tokens, calls=calls), events.append, arrival)


def metered(ledger: Ledger, engine: ScriptedEngine | None = None) -> MeteredEngine:
    return MeteredEngine(engine or ScriptedEngine(Script(reply=lambda call: FIVE)), "draft", ledger)


@pytest.mark.parametrize(("calls", "wanted", "affordable"), [(None, 7, 7), (3, 1, 1), (3, 3, 3), (3, 7, 3), (1, 7, 1)])
def test_as_many_calls_as_are_left_can_be_afforded(calls: int | None, wanted: int, affordable: int) -> None:
    assert ledger(calls=calls).affordable(wanted, 1) == (affordable, 1)


async def test_calls_count_from_when_they_begin() -> None:
    account = ledger(calls=3)
    engine = ScriptedEngine(Script(seconds_per_call=3600))
    running = asyncio.create_task(metered(account, engine).sample_siblings(Sample(REQUEST, SAMPLING), 2))
    while engine.in_flight < 2:
        await asyncio.sleep(0)

    assert account.affordable(5, 1) == (1, 1)
    with pytest.raises(BudgetSpent):
        await metered(account).sample_siblings(Sample(REQUEST, SAMPLING), 2)
    running.cancel()
    await asyncio.wait([running])


async def test_a_refused_call_reaches_no_engine() -> None:
    engine = ScriptedEngine()
    account = ledger(calls=1)
    await metered(account, engine).call(Choose(REQUEST, ("1", "2")))

    with pytest.raises(BudgetSpent):
        await metered(account, engine).call(Choose(REQUEST, ("1", "2")))
    with pytest.raises(BudgetSpent):
        await metered(account, engine).call(Sample(REQUEST, SAMPLING))
    with pytest.raises(BudgetSpent):
        account.affordable(1, 1)
    with pytest.raises(BudgetSpent):
        async with aclosing(metered(account, engine).stream(Sample(REQUEST, SAMPLING))) as items:
            await anext(items)
    assert len(engine.calls) == 1


async def test_prompt_and_completion_tokens_are_spent_and_the_rest_bounds_the_next_reply() -> None:
    account = ledger(tokens=17)
    engine = metered(account)

    first = await engine.call(Sample(REQUEST, SAMPLING))
    second = await engine.call(Sample(REQUEST, SAMPLING))

    # 5 prompt and 5 completion tokens the first time, which leaves 7; the second spends 10 of them.
    assert (first.usage.prompt_tokens, first.usage.completion_tokens) == (5, 5)
    assert second.text == FIVE
    with pytest.raises(BudgetSpent):
        await engine.call(Sample(REQUEST, SAMPLING))


async def test_siblings_share_the_tokens_that_are_left() -> None:
    replies = await metered(ledger(tokens=6)).sample_siblings(Sample(REQUEST, SAMPLING), 3)

    assert [reply.text for reply in replies] == ["one two"] * 3
    assert {reply.finish_reason for reply in replies} == {"length"}


async def test_calls_in_progress_hold_the_tokens_that_they_may_still_write() -> None:
    account = ledger(tokens=100)
    engine = ScriptedEngine(Script(seconds_per_call=3600))
    running = asyncio.create_task(metered(account, engine).sample_siblings(Sample(REQUEST, Sampling(max_tokens=30)), 3))
    while engine.in_flight < 3:
        await asyncio.sleep(0)

    assert account.affordable(50, 1) == (10, 1)
    running.cancel()
    await asyncio.wait([running])
    assert account.affordable(500, 9) == (100, 1)
    assert account.affordable(4, 30) == (4, 25)


async def test_a_call_that_failed_gives_back_what_it_held_and_counts_as_a_call() -> None:
    def fault(_: EngineCall) -> None:
        raise OSError

    account = ledger(tokens=100, calls=2)
    with pytest.raises(OSError):  # noqa: PT011
        await metered(account, ScriptedEngine(Script(fault=fault))).call(Sample(REQUEST, SAMPLING))

    assert account.affordable(5, 1) == (1, 1)
    assert account.usage == {}


async def test_every_way_to_ask_is_entered_and_told() -> None:
    told: list[Event] = []
    account = ledger(told=told)
    engine = ScriptedEngine(Script(reply=lambda call: FIVE))
    drafting, judging = MeteredEngine(engine, "draft", account), MeteredEngine(engine, "judge", account)

    await drafting.sample_siblings(Sample(REQUEST, SAMPLING), 2)
    pieces = [item async for item in drafting.stream(Sample(REQUEST, SAMPLING))]
    await judging.call(Choose(REQUEST, ("1", "2")))

    assert "".join(piece for piece in pieces if isinstance(piece, str)) == FIVE
    assert isinstance(pieces[-1], Completion)
    assert account.usage == {"draft": Usage(3, 15, 0, 15), "judge": Usage(1, 5, 0, 1)}
    calls = [event for event in told if isinstance(event, CallEnded)]
    assert [(call.role, call.usage.calls) for call in calls] == [("draft", 2), ("draft", 1), ("judge", 1)]
    assert all(call.seconds >= 0 for call in calls)


async def test_a_metered_engine_is_the_engine_in_all_else() -> None:
    engine = ScriptedEngine(Script(context_tokens=50), model="mine")
    own = metered(ledger(), engine)

    assert own.model == "mine"
    await own.fit(REQUEST)
    await own.check()
    with pytest.raises(ValueError, match="user turn"):
        await own.fit(REQUEST.with_reply("x"))


@dataclass
class Listening(ScriptedEngine):
    """A scripted engine that notes the priority of its calls."""

    priorities: list[int] = field(default_factory=list)

    async def call(self, call: Call[R], *, priority: int = 0) -> R:
        self.priorities.append(priority)
        return await super().call(call, priority=priority)


@pytest.mark.parametrize(("asked", "expected"), [(None, 4), (0, 0), (9, 9)])
async def test_a_call_has_the_programs_priority_unless_it_states_its_own(asked: int | None, expected: int) -> None:
    engine = Listening()
    own = metered(ledger(arrival=4), engine)

    await own.call(Sample(REQUEST, SAMPLING), priority=asked)
    await own.call(Choose(REQUEST, ("1",)), priority=asked)

    assert engine.priorities == [expected, expected]


async def test_a_program_that_has_cost_much_lets_later_ones_pass() -> None:
    long = Script(reply=lambda call: " ".join(["word"] * QUANTUM_TOKENS))
    engine = Listening(long)
    early, late = ledger(arrival=1), ledger(arrival=2)

    for of in (early, early, late):
        await metered(of, engine).call(Sample(REQUEST, Sampling(max_tokens=QUANTUM_TOKENS)))

    first, second, newcomer = engine.priorities
    assert first < newcomer < second
