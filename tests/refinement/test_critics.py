"""Who says what should change, and what it goes by: the critics auto and factored."""

import json
import math
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from service.engines.base import Sample, Weigh
from service.engines.conversation import Role
from service.engines.scripted import EngineCall, ScriptedEngine
from service.errors import InvalidRequest
from service.evaluators.base import Evaluator
from service.refinement.calibration import Scale
from service.refinement.candidate import Critique, Verification
from service.refinement.critic import ISSUES_SCHEMA, OPEN_SCHEMA, QUESTIONS_SCHEMA, SAMPLING
from service.refinement.events import Critiqued, Refined
from service.refinement.loop import refine
from service.refinement.program import PRESETS, Search
from service.refinement.roles import Roles
from service.tasks.task import load_tasks
from tests.support.scripts import (
    CRITICS_FENCE,
    DOUBTED,
    FOAM,
    JUDGE,
    READ_BY_ANSWER,
    SALT,
    BilledEngine,
    Clock,
    Lines,
    doubting,
    engine,
    events,
    is_answer,
    of_type,
    program,
    rated,
    refined,
    settled,
    stall,
)

FACTORED = Search(rounds=1, critic="factored")
SHOWN = f"Reply:\n{CRITICS_FENCE}\nWaves.\n{CRITICS_FENCE}"
QUESTIONS = ("Is it deep?", "Is it blue?")


def asked(scripted: BilledEngine) -> list[list[tuple[Role, str]]]:
    """The conversations of all critique calls, after the request."""
    calls = scripted.asked("critique")
    return [[(turn.role, turn.text) for turn in call.conversation.turns()][1:] for call in calls]


@pytest.mark.parametrize(
    ("evaluators", "findings", "calls"),
    [
        ((SALT,), ("missing: salt",), 0),
        ((FOAM,), ("missing: foam",), 0),
        ((SALT, JUDGE), ("missing: salt",), 0),
        ((JUDGE,), (), 1),
        ((), (), 1),
    ],
    ids=["a hard rule is broken", "a soft rule is", "a rule beside a judge is", "only a judge", "nobody evaluates"],
)
async def test_auto_asks_the_model_only_where_no_evaluator_has_an_issue(
    evaluators: Sequence[Evaluator], findings: tuple[str, ...], calls: int
) -> None:
    scripted = engine()

    found = await events(program(*evaluators, search=Search(rounds=1, critic="auto")), scripted)

    [done] = of_type(found, Refined)
    critique = doubting("c0", findings, "Too short.") if calls else Critique("c0", findings)
    assert len(scripted.asked("critique")) == calls
    assert [event.critique for event in of_type(found, Critiqued)] == [critique]
    assert [tuple(ended.critiques) for ended in done.rounds] == [(), (critique,)]


def test_auto_is_the_critic_of_every_preset() -> None:
    assert {search.critic for search in PRESETS.values()} == {"auto"}


async def test_auto_tells_the_revision_the_instructions_of_the_broken_rules() -> None:
    scripted = engine()

    await refined(program(SALT, FOAM), scripted)

    [edit] = scripted.asked("revise")
    assert edit.prompt == 'Edit: Use all of these words: "salt". Use all of these words: "foam". |  | '


async def test_auto_asks_about_each_of_several_parents_by_itself() -> None:
    scripted = engine(Lines(draft=["Salt.", "Waves."], revise=["One.", "Two."]))

    done = await refined(program(SALT, JUDGE, search=Search(drafts=2, beam=2, rounds=1)), scripted)

    assert len(scripted.asked("critique")) == 1
    assert sorted((c.candidate, c.issues) for c in done.rounds[1].critiques) == [
        ("c0", ("Too short.",)),
        ("c1", ("missing: salt",)),
    ]
    assert [call.prompt for call in scripted.asked("revise")] == [
        "Edit:  | Too short. | ",
        'Edit: Use all of these words: "salt". |  | ',
    ]


async def test_auto_asks_once_the_rules_are_met() -> None:
    scripted = engine(Lines(revise=["Salt.", "More salt."], ratings={"Salt.": rated(0.75)}))

    done = await refined(program(SALT, JUDGE, search=Search(rounds=2)), scripted)

    assert [[c.issues for c in ended.critiques] for ended in done.rounds] == [
        [],
        [("missing: salt",)],
        [("Too short.",)],
    ]
    assert len(scripted.asked("critique")) == 1


async def test_principles_are_put_to_the_model_whatever_the_evaluators_found() -> None:
    scripted = engine()

    done = await refined(program(SALT, principles=["Be kind."]), scripted)

    [call] = scripted.asked("critique")
    assert call.conversation.turn.text == "Criticise. Known: missing: salt Principles: Be kind."
    assert done.rounds[1].critiques == (doubting("c0", ("missing: salt",), "Too short."),)


async def test_a_factored_critic_asks_then_answers_and_is_told_both() -> None:
    scripted = engine(Lines(questions=QUESTIONS, answer=" It is. "))

    done = await refined(program(JUDGE, search=FACTORED), scripted)

    waves = ("user", SHOWN)
    assert asked(scripted) == [
        [waves, ("user", "Ask.")],
        [("user", "Answer: Is it deep?")],
        [("user", "Answer: Is it blue?")],
        [waves, ("user", "Criticise. Known:  Principles:  Is it deep? It is. Is it blue? It is.")],
    ]
    verifications = tuple(Verification(question, "It is.") for question in QUESTIONS)
    assert done.rounds[1].critiques == (doubting("c0", (), "Too short.", verifications=verifications),)


@pytest.mark.parametrize("text", ["Waves.", "deep", "A salty\nsea."])
async def test_whoever_answers_the_questions_sees_the_request_and_not_the_candidate(text: str) -> None:
    scripted = engine(Lines(draft=[text], questions=QUESTIONS))
    brief = program(JUDGE, search=FACTORED)

    await refined(brief, scripted)

    answering = [call for call in scripted.calls if is_answer(call)]
    assert len(answering) == len(QUESTIONS)
    for call, question in zip(answering, QUESTIONS, strict=True):
        assert call.conversation.before is brief.request
        assert call.conversation.turn.text == f"Answer: {question}"


async def test_a_factored_critic_is_greedy_and_asks_for_few_questions_in_json() -> None:
    scripted = engine(Lines(questions=QUESTIONS))

    await refined(program(JUDGE, search=FACTORED), scripted)

    asking, *answering, criticising = scripted.asked("critique")
    assert (asking.sampling, asking.schema) == (SAMPLING, QUESTIONS_SCHEMA)
    assert (criticising.sampling, criticising.schema) == (SAMPLING, ISSUES_SCHEMA)
    for call in answering:
        assert (call.sampling.temperature, call.schema) == (0.0, None)
    questions: Any = json.loads(json.dumps(QUESTIONS_SCHEMA))["properties"]["questions"]
    assert questions["maxItems"] == 3


@pytest.mark.parametrize("questions", [(), ("", "  ")])
async def test_a_factored_critic_without_questions_is_a_plain_one(questions: tuple[str, ...]) -> None:
    scripted = engine(Lines(questions=questions))

    done = await refined(program(JUDGE, search=FACTORED), scripted)

    assert asked(scripted)[1:] == [[("user", SHOWN), ("user", "Criticise. Known:  Principles: ")]]
    assert done.rounds[1].critiques == (doubting("c0", (), "Too short."),)


async def test_a_question_that_is_asked_twice_is_answered_once() -> None:
    scripted = engine(Lines(questions=["Is it?", " Is it? ", "Is it?"]))

    await refined(program(JUDGE, search=FACTORED), scripted)

    assert sum(is_answer(call) for call in scripted.calls) == 1


@pytest.mark.parametrize("count", [0, 1, 2, 3])
async def test_a_factored_critique_costs_three_calls_and_one_a_question(count: int) -> None:
    scripted = engine(Lines(questions=[f"Is it {number}?" for number in range(count)]))

    done = await refined(program(JUDGE, search=FACTORED), scripted)

    assert scripted.counts() == {"draft": 1, "judge": 4, "critique": 3 + count, "revise": 1}
    assert done.usage == scripted.bill


async def test_a_factored_critic_is_asked_though_a_rule_is_broken_and_is_told_of_it() -> None:
    scripted = engine(Lines(questions=["Is it?"]))

    await refined(program(SALT, search=FACTORED, principles=["Be kind."]), scripted)

    *_, criticising = scripted.asked("critique")
    assert criticising.conversation.turn.text == "Criticise. Known: missing: salt Principles: Be kind. Is it? It is."


async def test_a_factored_critic_asks_nothing_twice_about_the_same_parent() -> None:
    scripted = engine(Lines(questions=QUESTIONS, revise=["One.", "Two.", "Three."]))

    await refined(program(JUDGE, search=Search(rounds=3, critic="factored")), scripted)

    assert scripted.counts() == {"draft": 1, "judge": 8, "critique": 5, "revise": 3}


@pytest.mark.parametrize(
    ("calls", "questions", "revisions"),
    [
        pytest.param(3, None, 0, id="nothing is left for a critique"),
        pytest.param(4, None, 0, id="one call is too few"),
        pytest.param(5, 0, 0, id="two are a plain critique"),
        pytest.param(6, 0, 1, id="three are a plain critique and a revision"),
        pytest.param(7, 1, 0, id="four are a question, its answer and the critique"),
        pytest.param(8, 2, 0, id="five have a second question"),
    ],
)
async def test_a_factored_critic_asks_as_much_as_the_budget_allows(
    calls: int, questions: int | None, revisions: int
) -> None:
    scripted = engine(Lines(questions=QUESTIONS))

    done = await refined(program(JUDGE, search=FACTORED, calls=calls), scripted)

    assert (done.stop_reason, done.selected.text) == ("budget", "Waves.")
    critiques = done.rounds[-1].critiques
    assert [len(critique.verifications) for critique in critiques] == ([] if questions is None else [questions])
    assert len(done.rounds[-1].candidates) == revisions
    assert sum(usage.calls for usage in done.usage.values()) == len(scripted.calls) == calls
    assert done.usage == scripted.bill


async def test_a_deadline_among_the_answers_keeps_the_draft(clock: Clock) -> None:
    scripted = engine(Lines(questions=QUESTIONS))
    stall(scripted, is_answer, clock.jump)

    done = await refined(program(JUDGE, search=FACTORED), scripted)

    assert (done.stop_reason, done.selected.text) == ("deadline", "Waves.")
    await settled(scripted)


async def test_questions_that_were_cut_are_still_answered() -> None:
    def reply(call: Sample) -> str:
        return '{"questions": ["Is it deep?", "Is it bl' if call.schema is QUESTIONS_SCHEMA else Lines().reply(call)

    scripted = engine(reply=reply)

    await refined(program(JUDGE, search=FACTORED), scripted)

    answering = [call.conversation.turn.text for call in scripted.calls if is_answer(call)]
    assert answering == ["Answer: Is it deep?", "Answer: Is it bl"]


@pytest.mark.parametrize("name", ["general", "summarize", "translate", "code"])
async def test_the_built_in_prompts_serve_a_factored_critic(name: str) -> None:
    def reply(call: Sample) -> str:
        if call.schema is QUESTIONS_SCHEMA:
            return json.dumps({"questions": QUESTIONS})
        return json.dumps({"issues": ["Too short."]}) if call.schema else "Of course."

    scripted = ScriptedEngine()
    scripted.script = engine(reply=reply, weights=lambda call: [1 / len(call.options)] * len(call.options)).script

    done = await refined(program(JUDGE, search=FACTORED, prompts=load_tasks()[name].prompts), scripted)

    [critique] = done.rounds[1].critiques
    prompts = [call.conversation.turn.text for call in scripted.calls]
    assert critique.verifications == tuple(Verification(question, "Of course.") for question in QUESTIONS)
    for question in QUESTIONS:
        assert sum(prompt.endswith(question) for prompt in prompts) == 1
        assert sum(f"- {question} Of course.\n" in prompt for prompt in prompts) == 1


async def test_the_two_largest_departures_that_tell_are_remarks() -> None:
    sizes = {"a": 4.5, "b": 9.0, ".": 12.0, "d": 6.0}

    def rival(call: Weigh, token: str, logprob: float) -> tuple[str, float]:
        return ("foam", 0.0) if token.strip() in sizes else (token, logprob)

    scripted = engine(
        Lines(draft=["a b c . d"]), likelihood=lambda call, token: math.exp(-sizes.get(token.strip(), 0.1)), rival=rival
    )

    done = await refined(program(JUDGE), scripted)

    [critique] = done.rounds[1].critiques
    assert critique.issues == ("a b: foam?", "a b c . d: foam?", "Too short.")


async def test_the_largest_departure_is_a_remark_and_all_of_them_are_a_hint() -> None:
    def rival(call: Weigh, token: str, logprob: float) -> tuple[str, float]:
        return ("foam", 0.0) if token.strip() == "sand" else (token, logprob)

    scripted = engine(Lines(draft=["The sea is sand"]), likelihood=lambda call, token: 1e-4, rival=rival)

    done = await refined(program(JUDGE), scripted)

    [critique] = done.rounds[1].critiques
    assert critique.issues == ("The sea is sand: foam?", "Too short.")
    assert DOUBTED is not None
    assert {remark.weight for remark in critique.remarks} == {DOUBTED}


async def test_a_remark_that_repeats_the_fence_is_dropped() -> None:
    scripted = engine(Lines(critique=[(f"It says {CRITICS_FENCE}.", "Too short.")]))

    done = await refined(program(JUDGE), scripted)

    [critique] = done.rounds[1].critiques
    assert critique.issues == ("Too short.",)


async def test_a_critic_whose_engine_only_chats_goes_by_its_answer() -> None:
    def refuse(call: EngineCall) -> None:
        if isinstance(call, Weigh):
            raise InvalidRequest("the engine's server cannot weigh a text that is given")

    done = await refined(program(JUDGE), engine(fault=refuse))

    assert [critique.issues for critique in done.rounds[1].critiques] == [("Too short.",)]


async def test_a_request_and_a_text_that_are_long_together_are_not_weighed() -> None:
    scripted = engine()

    await refined(program(JUDGE, draft="Salt " * 1_200), scripted)

    assert [call.reply for call in scripted.calls_of(Weigh)] == ["More waves."]
    assert scripted.counts()["critique"] == 2


async def test_a_text_is_weighed_once_for_judge_and_critic() -> None:
    scripted = engine()

    await refined(program(JUDGE), scripted)

    assert [call.reply for call in scripted.calls_of(Weigh)] == ["Waves.", "More waves."]


async def test_judges_side_by_side_weigh_a_text_once() -> None:
    scripted = engine(seconds_per_call=0.001)

    await refined(program(JUDGE, replace(JUDGE, weight=2.0)), scripted)

    assert [call.reply for call in scripted.calls_of(Weigh)] == ["Waves.", "More waves."]


async def test_a_critic_that_is_another_model_than_the_judge_weighs_the_text_itself() -> None:
    judge, other = engine(), engine()
    other.model = "other"

    async with aclosing(refine(program(JUDGE), Roles(judge, other, judge))) as found:
        async for _ in found:
            pass

    assert [call.reply for call in other.calls_of(Weigh)] == ["Waves."]


async def test_a_model_that_shows_nothing_may_find_nothing() -> None:
    scripted = engine(Lines(critique=["{}"]), weights=lambda call: [0.1] * len(call.options))

    done = await refined(program(search=Search(rounds=1, critic="model", select="pairwise")), scripted)

    [critique] = done.rounds[1].critiques
    assert critique.fault_probability is None
    assert [call.schema for call in scripted.asked("critique")] == [OPEN_SCHEMA]


@pytest.mark.parametrize(
    ("rating", "calls", "reason"),
    [(0.0, 2, "rounds"), (0.5, 1, "no_issues"), (1.0, 0, "no_issues")],
    ids=["a judge that doubts has it speak", "one that does not leaves it the word", "one that is sure spares it"],
)
async def test_judge_and_critic_are_both_content_or_the_search_goes_on(rating: float, calls: int, reason: str) -> None:
    read = replace(READ_BY_ANSWER, judged=Scale(-4.0, 0.5), certainty=0.2)
    scripted = engine(Lines(critique=[()], ratings={"Waves.": rated(rating)}))

    done = await refined(program(JUDGE, search=Search(rounds=1), calibration=read), scripted)

    assert scripted.counts().get("critique", 0) == calls
    assert done.stop_reason == reason
