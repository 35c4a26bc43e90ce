"""What a program spends, entered call by call, and the calls that its budget refuses."""

import asyncio
import math
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field

import pytest

from service.engines.base import (
    PLAINLY,
    Call,
    Choice,
    Choose,
    Completion,
    Piece,
    R,
    Reading,
    Sample,
    Sampling,
    Usage,
    Weigh,
    cancelled_at_cost,
)
from service.engines.scripted import EngineCall, Script, ScriptedEngine
from service.refinement.accounting import BudgetSpent, Ledger, MeteredEngine, TimeIsUp
from service.refinement.events import CallEnded, Event
from service.refinement.program import Budget
from service.refinement.scheduling import QUANTUM_TOKENS
from tests.support.scripts import REQUEST
from tests.support.virtual_time import run_in_virtual_time

FIVE = "one two three four five"
SAMPLING = Sampling(max_tokens=100)


def ledger(
    tokens: int | None = None, calls: int | None = None, told: list[Event] | None = None, arrival: int = 0
) -> Ledger:
    events = [] if told is None else told
    return Ledger(Budget(deadline=math.inf, tokens=tokens, calls=calls), events.append, arrival)


def metered(ledger: Ledger, engine: ScriptedEngine | None = None) -> MeteredEngine:
    return MeteredEngine(engine or ScriptedEngine(Script(reply=lambda call: FIVE)), "draft", ledger)


async def written(engine: MeteredEngine, max_tokens: int) -> Completion:
    """A text of up to so many tokens."""
    *_, last = [item async for item in engine.stream(Sample(REQUEST, Sampling(max_tokens=max_tokens)))]
    assert isinstance(last, Completion)
    return last


@pytest.mark.parametrize(("calls", "wanted", "left"), [(None, 7, 7), (3, 1, 1), (3, 3, 3), (3, 7, 3), (1, 7, 1)])
def test_as_many_calls_as_are_left_may_begin(calls: int | None, wanted: int, left: int) -> None:
    assert ledger(calls=calls).calls_left(wanted) == left


async def test_calls_count_from_when_they_begin() -> None:
    account = ledger(calls=3)
    engine = ScriptedEngine(Script(seconds_per_call=3600))
    choose = Choose(REQUEST, ("1", "2"))
    running = asyncio.create_task(metered(account, engine).call_together([choose, choose]))
    while engine.in_flight < 2:
        await asyncio.sleep(0)

    assert account.calls_left(5) == 1
    with pytest.raises(BudgetSpent):
        await metered(account).call_together([choose, choose])
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
        account.calls_left(1)
    with pytest.raises(BudgetSpent):
        await written(metered(account, engine), 100)
    assert len(engine.calls) == 1


async def test_a_text_may_have_what_is_left_after_its_prompt_and_says_that_the_budget_cut_it() -> None:
    account = ledger(tokens=8)

    text = await written(metered(account), 100)

    assert (text.text, text.finish_reason) == ("one two three", "budget")
    assert (text.usage.prompt_tokens, text.usage.completion_tokens) == (5, 3)


async def test_a_text_that_max_tokens_cuts_does_not_blame_the_budget() -> None:
    assert (await written(metered(ledger(tokens=100)), 3)).finish_reason == "length"


async def test_a_text_that_ends_by_itself_within_what_was_left_is_whole() -> None:
    assert (await written(metered(ledger(tokens=10)), 100)).finish_reason == "stop"


async def test_a_call_that_is_no_text_has_all_that_it_may_cost_or_does_not_begin() -> None:
    engine = ScriptedEngine(Script(reply=lambda call: FIVE))
    call = Sample(REQUEST, Sampling(max_tokens=6))

    with pytest.raises(BudgetSpent):
        await metered(ledger(tokens=10), engine).call(call)
    assert (await metered(ledger(tokens=11), engine).call(call)).text == FIVE
    with pytest.raises(BudgetSpent):
        await metered(ledger(tokens=5), engine).call(Choose(REQUEST, ("1", "2")))
    await metered(ledger(tokens=6), engine).call(Choose(REQUEST, ("1", "2")))
    with pytest.raises(BudgetSpent):
        await metered(ledger(tokens=10), engine).call(Weigh(REQUEST, FIVE))
    await metered(ledger(tokens=11), engine).call(Weigh(REQUEST, FIVE))
    assert len(engine.calls) == 3


async def test_calls_that_belong_together_begin_together_or_not_at_all() -> None:
    engine = ScriptedEngine()
    choose = Choose(REQUEST, ("1", "2"))

    with pytest.raises(BudgetSpent):
        await metered(ledger(tokens=11), engine).call_together([choose, choose])
    assert engine.calls == []
    assert len(await metered(ledger(tokens=12), engine).call_together([choose, choose])) == 2


async def test_as_many_texts_are_at_work_as_surely_fit_and_each_that_ends_early_makes_room() -> None:
    account = ledger(tokens=60)
    most = 0

    def reply(_: Sample) -> str:
        nonlocal most
        most = max(most, engine.in_flight)
        return FIVE

    engine = ScriptedEngine(Script(reply=reply, seconds_per_call=0.001))

    # Each may take 5 + 20 tokens and takes 10, so two are at work at once, and five are written. The sixth finds 10.
    texts = await asyncio.gather(*(written(metered(account, engine), 20) for _ in range(6)))

    assert most == 2
    assert [text.text for text in texts] == [FIVE] * 6
    assert account.usage["draft"].tokens == 60


async def test_a_text_with_less_room_than_texts_usually_take_does_not_begin() -> None:
    account = ledger(tokens=19)

    assert (await written(metered(account), 100)).text == FIVE
    with pytest.raises(BudgetSpent):  # 9 tokens are left: 5 for the prompt and 4 for a text
        await written(metered(account), 100)
    assert account.usage["draft"].tokens == 10


async def test_a_text_that_waits_for_room_ends_with_its_caller() -> None:
    account = ledger(tokens=30)
    engine = ScriptedEngine(Script(seconds_per_call=3600))
    first = asyncio.create_task(written(metered(account, engine), 20))
    second = asyncio.create_task(written(metered(account, engine), 20))
    while engine.in_flight < 1:
        await asyncio.sleep(0)

    second.cancel()
    await asyncio.wait([second])
    first.cancel()
    await asyncio.wait([first])

    assert len(engine.calls) == 1
    assert (await written(metered(account), 20)).text == FIVE


async def test_a_call_that_failed_gives_back_what_it_held_and_counts_as_a_call() -> None:
    def fault(_: EngineCall) -> None:
        raise OSError

    account = ledger(tokens=106, calls=2)
    with pytest.raises(OSError):  # noqa: PT011
        await metered(account, ScriptedEngine(Script(fault=fault))).call(Sample(REQUEST, SAMPLING))

    assert account.calls_left(5) == 1
    assert account.usage == {}
    assert (await metered(account).call(Sample(REQUEST, SAMPLING))).text == FIVE


async def test_a_stream_that_is_closed_is_entered_as_far_as_it_came() -> None:
    account = ledger()
    cut: list[Completion] = []

    pieces = metered(account).stream(Sample(REQUEST, SAMPLING), reading=Reading(on_cut=cut.append))
    async with aclosing(pieces) as items:
        assert await anext(items) == "one"

    assert [completion.text for completion in cut] == ["one"]
    assert account.usage == {"draft": Usage(1, 5, 0, 1)}


async def test_a_call_ends_at_the_deadline() -> None:
    engine = ScriptedEngine(Script(seconds_per_call=3600))
    account = Ledger(Budget(deadline=asyncio.get_running_loop().time() + 0.01), lambda event: None)

    for _ in range(2):
        with pytest.raises(TimeIsUp):
            await metered(account, engine).call(Choose(REQUEST, ("1", "2")))

    assert len(engine.calls) == 1
    assert engine.in_flight == 0


async def test_every_way_to_ask_is_entered_and_told() -> None:
    told: list[Event] = []
    account = ledger(told=told)
    engine = ScriptedEngine(Script(reply=lambda call: FIVE))
    drafting, judging = MeteredEngine(engine, "draft", account), MeteredEngine(engine, "judge", account)

    await drafting.call(Sample(REQUEST, SAMPLING))
    pieces = [item async for item in drafting.stream(Sample(REQUEST, SAMPLING))]
    await judging.call(Choose(REQUEST, ("1", "2")))

    assert "".join(piece for piece in pieces if isinstance(piece, str)) == FIVE
    assert isinstance(pieces[-1], Completion)
    assert account.usage == {"draft": Usage(2, 10, 0, 10), "judge": Usage(1, 5, 0, 1)}
    calls = [event for event in told if isinstance(event, CallEnded)]
    assert [(call.role, call.usage.calls) for call in calls] == [("draft", 1), ("draft", 1), ("judge", 1)]
    assert all(call.seconds >= 0 for call in calls)


def test_a_call_that_is_cut_costs_what_was_sampled_by_then() -> None:
    engine = ScriptedEngine(Script(reply=lambda call: FIVE, seconds_per_token=1.0))
    account = Ledger(Budget(deadline=3.5), lambda event: None)

    async def call() -> None:
        with pytest.raises(TimeIsUp):
            await MeteredEngine(engine, "critique", account).call(Sample(REQUEST, SAMPLING))

    run_in_virtual_time(call())

    assert account.usage == {"critique": Usage(1, 5, 0, 3)}


@dataclass
class Late(ScriptedEngine):
    """A scripted engine that has computed each call when its caller leaves, and has not returned it."""

    async def choose(self, choose: Choose, priority: int) -> Choice:
        result = await super().choose(choose, priority)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise cancelled_at_cost(result.usage) from None
        return result


def test_a_call_that_was_computed_when_the_time_ended_is_in_the_account() -> None:
    account = Ledger(Budget(deadline=3.5), lambda event: None)
    calls = [Choose(REQUEST, ("1",))] * 2

    async def call() -> None:
        with pytest.raises(TimeIsUp):
            await MeteredEngine(Late(), "judge", account).call_together(calls)

    run_in_virtual_time(call())

    assert account.usage == {"judge": Usage(2, 10, 0, 2)}


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

    def stream(self, sample: Sample, *, priority: int = 0, reading: Reading = PLAINLY) -> AsyncGenerator[Piece, None]:
        self.priorities.append(priority)
        return super().stream(sample, priority=priority, reading=reading)


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
