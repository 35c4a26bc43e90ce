"""Generate and critique programs: without a loop, but with the same account."""

import math
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from service.engines.base import Choose, Sample, Sampling, Usage, Weigh
from service.engines.conversation import Conversation, Turn
from service.engines.scripted import EngineCall, Script, ScriptedEngine
from service.errors import DeadlineExceeded, EngineDead, EngineUnavailable, PromptTooLong
from service.refinement.calibration import Calibration, Scale
from service.refinement.critic import OWN_SAMPLING
from service.refinement.events import (
    CallEnded,
    Critiqued,
    Delta,
    EvaluatorEnded,
    Event,
    Generated,
    Reviewed,
)
from service.refinement.program import Budget, Generate, Review, Search
from service.refinement.roles import Models, Roles
from service.refinement.single import generate, review
from service.refinement.trust import JudgeTrust, TrustLevel
from tests.support.scripts import (
    CRITICS_FENCE,
    FENCE,
    JUDGE,
    PROMPTS,
    READ_BY_ANSWER,
    REQUEST,
    SALT,
    SAY_AGAIN,
    Broken,
    Clock,
    Lines,
    engine,
    halt,
    of_type,
    program,
    refined,
    role_of,
    settled,
    stall,
)

MODELS = Models.single("scripted")
PROMPT_TEXTS = ("One?", "Two?", "Three?")


def answer(call: Sample) -> str:
    assert call.sampling
    return f"{call.prompt} is answered with seed {call.sampling.seed}"


def generation(**fields: Any) -> Generate:
    requests = [Conversation(Turn("user", text)) for text in PROMPT_TEXTS]
    given = {"id": "gen-1", "task": "general", "models": MODELS, "requests": requests, "budget": program().budget}
    return Generate(**{**given, **fields})


def critique_of(text: str, *evaluators: Any, **fields: Any) -> Review:
    given = {
        "id": "crit-1",
        "task": "general",
        "models": MODELS,
        "request": REQUEST,
        "prompts": PROMPTS,
        "fence": FENCE,
        "budget": program().budget,
        "evaluators": evaluators,
        "candidate": text,
    }
    return Review(**{**given, **fields})


async def events(found: Any) -> list[Event]:
    async with aclosing(found):
        return [event async for event in found]


@pytest.mark.parametrize("stream", [False, True])
async def test_every_prompt_has_its_siblings_in_order(stream: bool) -> None:
    scripted = ScriptedEngine(Script(reply=answer))

    *_, done = await events(generate(generation(n=2, sampling=Sampling(seed=5), stream=stream), Roles.single(scripted)))

    assert isinstance(done, Generated)
    assert (done.program, done.model) == ("gen-1", "scripted")
    assert [[completion.text for completion in siblings] for siblings in done.completions] == [
        [f"{text} is answered with seed {seed}" for seed in (5, 6)] for text in PROMPT_TEXTS
    ]
    # Role mark, prompt; six words.
    assert done.usage == {"draft": Usage(calls=6, prompt_tokens=12, cached_tokens=0, completion_tokens=36)}


async def test_deltas_of_each_text_come_in_order_and_join_to_it() -> None:
    scripted = ScriptedEngine(Script(reply=answer))

    found = await events(generate(generation(n=2, sampling=Sampling(seed=5), stream=True), Roles.single(scripted)))

    [done] = of_type(found, Generated)
    texts: dict[tuple[int, int], str] = {}
    for delta in of_type(found, Delta):
        texts[delta.prompt_index, delta.index] = texts.get((delta.prompt_index, delta.index), "") + delta.text
    assert texts == {
        (prompt, index): completion.text
        for prompt, siblings in enumerate(done.completions)
        for index, completion in enumerate(siblings)
    }
    assert len(of_type(found, Delta)) == 36


async def test_without_a_stream_there_are_no_deltas() -> None:
    found = await events(generate(generation(n=2), Roles.single(ScriptedEngine())))

    assert of_type(found, Delta) == []
    assert [call.usage.calls for call in of_type(found, CallEnded)] == [1] * 6


async def test_a_schema_reaches_every_call() -> None:
    schema = {"type": "object", "properties": {"warm": {"type": "boolean"}}, "required": ["warm"]}

    for stream in (False, True):
        *_, done = await events(generate(generation(schema=schema, stream=stream), Roles.single(ScriptedEngine())))
        assert isinstance(done, Generated)
        assert {siblings[0].text for siblings in done.completions} == {'{"warm":true}'}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_deadline_ends_a_generation_and_its_calls(clock: Clock, stream: bool) -> None:
    scripted = ScriptedEngine()
    stall(scripted, lambda call: True, clock.jump)

    with pytest.raises(DeadlineExceeded):
        await events(generate(generation(n=2, stream=stream), Roles.single(scripted)))
    await settled(scripted)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_deadline_returns_texts_as_far_as_they_came(clock: Clock, stream: bool) -> None:
    scripted = ScriptedEngine(Script(reply=answer))
    halt(scripted, 3, clock.jump, streams=6)

    *_, done = await events(generate(generation(n=2, stream=stream, sampling=Sampling(seed=5)), Roles.single(scripted)))

    assert isinstance(done, Generated)
    texts = [completion.text for siblings in done.completions for completion in siblings]
    assert texts == [f"{text} is answered" for text in PROMPT_TEXTS for _ in range(2)]
    assert {completion.finish_reason for siblings in done.completions for completion in siblings} == {"deadline"}
    assert done.usage == {"draft": Usage(calls=6, prompt_tokens=12, cached_tokens=0, completion_tokens=18)}
    await settled(scripted)


@pytest.mark.parametrize("stream", [False, True])
async def test_an_engine_that_dies_in_mid_stream_leaves_what_was_written(stream: bool) -> None:
    scripted = ScriptedEngine(Script(reply=answer))
    halt(scripted, 3, scripted.kill, streams=3)

    *_, done = await events(generate(generation(stream=stream, sampling=Sampling(seed=5)), Roles.single(scripted)))

    assert isinstance(done, Generated)
    assert [(c.text, c.finish_reason) for siblings in done.completions for c in siblings] == [
        (f"{text} is answered", "engine_failed") for text in PROMPT_TEXTS
    ]


@pytest.mark.parametrize("stream", [False, True])
async def test_one_text_that_cannot_begin_ends_no_other(stream: bool) -> None:
    def fault(call: EngineCall) -> None:
        if call.prompt == "Two?":
            raise EngineUnavailable("gone")

    scripted = ScriptedEngine(Script(reply=answer, fault=fault))

    *_, done = await events(generate(generation(stream=stream), Roles.single(scripted)))

    assert isinstance(done, Generated)
    assert [(bool(c.text), c.finish_reason) for siblings in done.completions for c in siblings] == [
        (True, "stop"),
        (False, "engine_failed"),
        (True, "stop"),
    ]


@pytest.mark.parametrize("stream", [False, True])
async def test_texts_of_which_none_can_begin_are_an_error(stream: bool) -> None:
    scripted = ScriptedEngine()
    scripted.kill()

    with pytest.raises(EngineDead):
        await events(generate(generation(stream=stream), Roles.single(scripted)))


async def test_closing_a_generation_ends_its_calls() -> None:
    scripted = ScriptedEngine(Script(reply=answer, seconds_per_token=0.001))
    found = generate(generation(n=2, stream=True), Roles.single(scripted))

    assert isinstance(await anext(found), Delta)
    assert scripted.in_flight == 6
    await found.aclose()

    assert scripted.in_flight == 0


async def test_a_review_evaluates_and_then_criticises() -> None:
    scripted = engine(Lines(critique=[["Too short."]]))

    found = await events(review(critique_of("Sand.", SALT, JUDGE), Roles.single(scripted)))

    assert [type(event) for event in found] == [
        EvaluatorEnded,
        *[CallEnded] * 2,
        EvaluatorEnded,
        *[CallEnded] * 5,
        Critiqued,
        Reviewed,
    ]
    [done] = of_type(found, Reviewed)
    assert (done.program, done.models) == ("crit-1", MODELS)
    assert [(e.evaluator, e.score) for e in done.assessment.evaluations] == [("keywords", 0.0), ("judge", 0.5)]
    assert done.critique is not None
    assert done.critique.issues == ("missing: salt", "Too short.")
    assert done.usage == scripted.bill


async def test_a_review_without_feedback_asks_no_critic() -> None:
    scripted = engine()

    *_, done = await events(review(critique_of("Sand.", SALT, feedback=False), Roles.single(scripted)))

    assert isinstance(done, Reviewed)
    assert (done.critique, done.usage, scripted.calls) == (None, {}, [])


def turns(call: Sample | Choose | Weigh) -> Sequence[tuple[str, str]]:
    return [(turn.role, turn.text) for turn in call.conversation.turns()]


async def test_a_critic_answers_the_request_before_it_reads_a_callers_text() -> None:
    scripted = engine(Lines(own="Stones."))
    asked = critique_of("Sand.")

    await events(review(asked, Roles.single(scripted)))

    shown = [
        *[(turn.role, turn.text) for turn in asked.request.turns()],
        ("assistant", "Stones."),
        ("user", f"Another reply:\n{CRITICS_FENCE}\nSand.\n{CRITICS_FENCE}"),
    ]
    own, naming = scripted.asked("critique")
    alone, doubt = scripted.calls_of(Choose)
    assert (own.sampling, turns(own)) == (OWN_SAMPLING, shown[:1])
    assert turns(alone)[1:-1] == [("user", f"Reply:\n{CRITICS_FENCE}\nSand.\n{CRITICS_FENCE}")]
    assert turns(doubt)[:-1] == turns(naming)[:-1] == shown


@pytest.mark.parametrize(("as_answer", "again", "counts"), [(9.0, 3.0, 3.0), (4.0, 12.0, 4.0)])
async def test_a_text_that_is_compared_departs_from_an_answer_or_from_the_critics_own(
    as_answer: float, again: float, counts: float
) -> None:
    def likelihood(call: Weigh, token: str) -> float:
        return math.exp(-(as_answer if call.conversation == asked.request else again))

    read = Calibration(approval=Scale(0.0, 0.0), compared=Scale(0.0, 0.0), compared_departure=Scale(1.0, 0.0))
    asked = critique_of("Sand.", calibration=read)
    scripted = engine(Lines(own="Stones."), likelihood=likelihood, rival=lambda *_: ("Stones", 0.0))

    *_, done = await events(review(asked, Roles.single(scripted)))

    weighed = scripted.calls_of(Weigh)
    assert [turns(call) for call in weighed] == [
        turns(scripted.asked("critique")[0]),
        [*turns(scripted.asked("critique")[0]), ("assistant", "Stones."), ("user", SAY_AGAIN)],
    ]
    assert isinstance(done, Reviewed)
    assert done.critique is not None
    assert done.critique.fault_probability == pytest.approx((1.0 + counts) / (2.0 + counts))


async def test_what_a_critic_says_after_its_own_answer_is_other_evidence() -> None:
    read = replace(READ_BY_ANSWER, approval=Scale(-1.0, 0.0), compared=Scale(-1.0, 1.0))

    def even(call: Choose) -> Sequence[float]:
        return [0.5, 0.5]

    *_, done = await events(review(critique_of("Sand.", calibration=read), Roles.single(engine(weights=even))))

    assert isinstance(done, Reviewed)
    assert done.critique is not None
    assert done.critique.fault_probability == pytest.approx(1.0 / (1.0 + math.exp(-1.0)))


@pytest.mark.parametrize(
    ("text", "own", "samples"),
    [("Sand.", " ", 2), ("Sand. " * 400, "Stones.", 1)],
    ids=["has no answer of its own", "would read a long text"],
)
async def test_a_critic_reads_the_text_alone_if_it(text: str, own: str, samples: int) -> None:
    scripted = engine(Lines(own=own))

    await events(review(critique_of(text), Roles.single(scripted)))

    *_, naming = scripted.asked("critique")
    assert len(scripted.asked("critique")) == samples
    assert "assistant" not in [role for role, _ in turns(naming)]


async def test_a_critic_of_a_refine_has_no_answer_of_its_own() -> None:
    scripted = engine()

    await refined(program(search=Search(rounds=1, critic="model")), scripted)

    assert not [call for call in scripted.calls_of(Sample) if call.sampling == OWN_SAMPLING]


@pytest.mark.parametrize(("level", "samples"), [("drive", 2), ("break_ties", 2), ("none", 1)])
async def test_a_critic_that_cannot_tell_right_from_wrong_has_no_answer_of_its_own(
    level: TrustLevel, samples: int
) -> None:
    scripted = engine()
    asked = critique_of("Sand.", critic_trust=JudgeTrust(level))

    *_, done = await events(review(asked, Roles.single(scripted)))

    assert isinstance(done, Reviewed)
    assert len(scripted.asked("critique")) == samples
    assert done.critique is not None
    assert [remark.message for remark in done.critique.remarks] == ["Too short."]


async def test_a_critic_whose_own_answer_leaves_no_room_reads_the_text_alone() -> None:
    scripted = engine(Lines(own="Stones " * 100), context_tokens=250)

    *_, done = await events(review(critique_of("Sand."), Roles.single(scripted)))

    own, naming = scripted.asked("critique")
    assert own.sampling == OWN_SAMPLING
    assert "assistant" not in [role for role, _ in turns(naming)]
    assert isinstance(done, Reviewed)
    assert done.usage["critique"] == scripted.bill["critique"]


async def test_a_review_reports_an_evaluator_that_fails() -> None:
    *_, done = await events(review(critique_of("Salt.", Broken(), SALT, feedback=False), Roles.single(engine())))

    assert isinstance(done, Reviewed)
    broken, keywords = done.assessment.evaluations
    assert (broken.error, broken.score, keywords.score) == ("OSError: no route to the evaluator", None, 1.0)
    assert done.assessment.passed is None


@pytest.mark.parametrize("role", ["judge", "critique"])
async def test_a_deadline_ends_a_review_and_its_calls(clock: Clock, role: str) -> None:
    scripted = engine()
    stall(scripted, lambda call: role_of(call) == role, clock.jump)

    with pytest.raises(DeadlineExceeded):
        await events(review(critique_of("Sand.", JUDGE), Roles.single(scripted)))
    await settled(scripted)


@pytest.mark.parametrize(
    ("request_", "candidate", "field"), [("word " * 100, "Sand.", "prompt"), ("Write.", "word " * 100, "candidate")]
)
async def test_a_review_that_does_not_fit_the_context_names_what_is_too_long(
    request_: str, candidate: str, field: str
) -> None:
    asked = critique_of(candidate, request=Conversation(Turn("user", request_)))

    with pytest.raises(PromptTooLong) as refused:
        await events(review(asked, Roles.single(engine(context_tokens=60))))

    assert [error.field for error in refused.value.errors] == [field]


async def test_a_review_of_a_dead_engine_is_an_error() -> None:
    scripted = engine()
    scripted.kill()

    with pytest.raises(EngineDead):
        await events(review(critique_of("Sand.", JUDGE), Roles.single(scripted)))


async def test_budgets_of_both_are_deadlines_of_the_loops_clock() -> None:
    past = Budget(deadline=-1.0)

    with pytest.raises(DeadlineExceeded):
        await events(generate(generation(budget=past), Roles.single(ScriptedEngine(Script(seconds_per_call=3600)))))
    with pytest.raises(DeadlineExceeded):
        await events(review(critique_of("Sand.", JUDGE, budget=past), Roles.single(engine(seconds_per_call=3600.0))))
