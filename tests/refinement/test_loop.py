"""One refine program end to end: what happens in which order, what is asked of whom, what is counted."""

import asyncio

import pytest

from service.engines.base import Sampling, Usage
from service.evaluators.model.judge import Criterion, Judge
from service.evaluators.text.format import Format
from service.refinement.candidate import Critique
from service.refinement.events import (
    CallEnded,
    CandidateAdded,
    CandidateEvaluated,
    Critiqued,
    Delta,
    EvaluatorEnded,
    Event,
    Refined,
    RoundEnded,
    Started,
)
from service.refinement.loop import refine
from service.refinement.program import Critic, Search, Stop
from service.refinement.roles import CallRole, Models, Roles
from tests.support.scripts import (
    FOAM,
    JUDGE,
    SALT,
    Broken,
    Counted,
    Lines,
    engine,
    events,
    of_type,
    program,
    rated,
    refined,
    role_of,
    stall,
)


def told(event: Event) -> str:
    """An event in a few words."""
    match event:
        case CallEnded(role):
            return f"{role} call"
        case EvaluatorEnded(evaluator):
            return f"{evaluator} ended"
        case CandidateAdded(candidate):
            return f"{candidate.id} from {candidate.parent}"
        case CandidateEvaluated(candidate, assessment):
            return f"{candidate.id} scored {assessment.score}"
        case Critiqued(round=number, critique=critique):
            return f"{critique.candidate} criticised in {number}"
        case RoundEnded(ended):
            return f"round {ended.number}: {ended.incumbent} gained {ended.gain}"
        case _:
            return type(event).__name__


async def test_events_come_in_the_order_of_the_work() -> None:
    lines = Lines(
        draft=["Salt."], revise=["Salt and foam."], ratings={"Salt.": rated(0.25), "Salt and foam.": rated(0.75)}
    )

    found = await events(program(SALT, JUDGE), engine(lines))

    assert [told(event) for event in found] == [
        "Started",
        "draft call",
        "c0 from None",
        "keywords ended",
        "judge call",
        "judge call",
        "judge ended",
        "c0 scored 0.625",
        "round 0: c0 gained 0.0",
        "critique call",
        "critique call",
        "c0 criticised in 1",
        "revise call",
        "c1 from c0",
        "keywords ended",
        "judge call",
        "judge call",
        "judge ended",
        "c1 scored 0.875",
        "round 1: c1 gained 0.25",
        "Refined",
    ]
    assert found[0] == Started("ref-1", Models.single("scripted"), "general")
    assert of_type(found, Delta) == []


async def test_the_account_tells_of_every_round_and_candidate() -> None:
    lines = Lines(draft=["Waves."], revise=["Salt."], critique=[["Too short.", "Too plain."]])

    done = await refined(program(SALT, search=Search(rounds=1, critic="model")), engine(lines))

    assert [(c.id, c.round, c.form, c.parent, c.text) for ended in done.rounds for c in ended.candidates] == [
        ("c0", 0, "draft", None, "Waves."),
        ("c1", 1, "edit", "c0", "Salt."),
    ]
    assert [(ended.number, ended.incumbent, ended.accepted, ended.gain) for ended in done.rounds] == [
        (0, "c0", True, 0.0),
        (1, "c1", True, 1.0),
    ]
    [critique] = done.rounds[1].critiques
    assert (critique.candidate, critique.issues) == ("c0", ("missing: salt", "Too short.", "Too plain."))
    assert (done.first.id, done.selected.id, done.program, done.models.writer, done.task) == (
        "c0",
        "c1",
        "ref-1",
        "scripted",
        "general",
    )
    assert all(ended.seconds > 0 for ended in done.rounds)


async def test_a_worse_revision_is_not_returned() -> None:
    lines = Lines(draft=["Salt."], revise=["Foam."], ratings={"Salt.": rated(0.25), "Foam.": rated(1.0)})

    done = await refined(program(SALT, JUDGE), engine(lines))

    assert done.selected.text == "Salt."
    assert (done.rounds[1].accepted, done.rounds[1].gain) == (False, 0.0)


async def test_min_gain_holds_a_judge_back() -> None:
    lines = Lines(revise=["One."], ratings={"Waves.": rated(0.25), "One.": rated(0.75)})

    kept = await refined(program(JUDGE, stop=Stop(min_gain=0.5)), engine(lines))
    taken = await refined(program(JUDGE, stop=Stop(min_gain=0.49)), engine(lines))

    assert (kept.selected.text, taken.selected.text) == ("Waves.", "One.")


@pytest.mark.parametrize(
    "search",
    [
        Search(rounds=2, critic="model"),
        Search(drafts=3, beam=2, branches=2, rounds=2),
        Search(drafts=2, rounds=2, critic="factored", select="pairwise"),
        Search(drafts=2, beam=4, rounds=2, carry="adaptive"),
    ],
)
async def test_usage_by_role_is_what_the_engine_calls_cost(search: Search) -> None:
    texts = [f"Revision {number} has some words." for number in range(8)]
    drafts = ["One. " * 20, "Two words.", "Three words here.", *(f"Draft {number}." for number in range(8))]
    scripted = engine(Lines(draft=drafts, revise=texts, questions=["Is it?", "Was it?"]))

    found = await events(program(SALT, JUDGE, search=search, sampling=Sampling(seed=2)), scripted)

    [done] = of_type(found, Refined)
    assert done.usage == scripted.bill
    by_role: dict[CallRole, Usage] = {}
    for call in of_type(found, CallEnded):
        by_role[call.role] = by_role.get(call.role, Usage()) + call.usage
    assert by_role == done.usage
    assert {role: usage.calls for role, usage in done.usage.items()} == scripted.counts()
    assert sum(usage.cached_tokens for usage in done.usage.values()) > 0


async def test_a_beam_makes_exactly_the_calls_that_its_widths_ask_for() -> None:
    texts = [f"Revision {number}." for number in range(8)]
    scripted = engine(Lines(draft=["One.", "Two.", "Three."], revise=texts))
    judge = Judge(criteria=(JUDGE.criteria[0], Criterion(name="truth", question="Is it true?")))

    await refined(program(judge, search=Search(drafts=3, beam=2, branches=2, rounds=2)), scripted)

    # Nothing is judged better than the first draft, so each round has the same two parents, already criticised.
    assert scripted.counts() == {"draft": 3, "critique": 4, "revise": 8, "judge": 3 * 11}


async def test_equal_texts_are_evaluated_once() -> None:
    rule = Counted(SALT)
    scripted = engine(Lines(draft=["Waves.", "Foam.", "Waves.", "Waves."]))

    found = await events(program(rule, JUDGE, search=Search(drafts=4, rounds=0)), scripted)

    [done] = of_type(found, Refined)
    assert rule.seen == ["Waves.", "Foam."]
    assert scripted.counts() == {"draft": 4, "judge": 4}
    assert done.assessments["c2"] == done.assessments["c3"] == done.assessments["c0"]
    assert sorted(event.candidate.id for event in of_type(found, CandidateEvaluated)) == ["c0", "c1", "c2", "c3"]


async def test_evaluations_and_rounds_say_what_was_spent_by_then() -> None:
    scripted = engine(Lines(revise=["Salt.", "Salt and foam."]))

    found = await events(program(SALT, JUDGE, search=Search(rounds=2)), scripted)

    spent, told = 0, []
    for event in found:
        match event:
            case CallEnded(usage=usage):
                spent += usage.tokens
            case CandidateEvaluated(tokens=tokens) | RoundEnded(tokens=tokens):
                told.append(tokens)
                assert tokens == spent
    [done] = of_type(found, Refined)
    assert told == sorted(told)
    assert told[-1] == sum(usage.tokens for usage in done.usage.values())


async def test_a_revision_that_only_mends_the_case_is_a_text_of_its_own() -> None:
    lines = Lines(draft=["Salt AND Waves."], revise=["salt and waves."])

    done = await refined(program(Format(kind="lowercase"), search=Search(rounds=1)), engine(lines))

    assert (done.stop_reason, done.selected.text) == ("target", "salt and waves.")


async def test_the_callers_own_draft_costs_no_call() -> None:
    scripted = engine(Lines(revise=["Salt."]))

    done = await refined(program(SALT, draft="Mine.", search=Search(drafts=4, rounds=1)), scripted)

    assert (done.first.text, done.selected.text) == ("Mine.", "Salt.")
    assert [candidate.id for candidate in done.rounds[0].candidates] == ["c0"]
    assert "draft" not in done.usage
    assert scripted.counts() == {"revise": 1}


@pytest.mark.parametrize(("critic", "critiques"), [("none", ()), ("evaluators", (Critique("c0", ("missing: salt",)),))])
async def test_without_a_model_as_the_critic_no_critique_is_asked_for(
    critic: Critic, critiques: tuple[Critique, ...]
) -> None:
    scripted = engine(Lines(revise=["One.", "Two."]))

    found = await events(program(SALT, search=Search(rounds=2, critic=critic)), scripted)

    [done] = of_type(found, Refined)
    assert scripted.counts() == {"draft": 1, "revise": 2}
    assert [ended.critiques for ended in done.rounds] == [(), critiques, critiques]
    assert [event.critique for event in of_type(found, Critiqued)] == [*critiques, *critiques]


async def test_evaluators_as_the_critic_pass_their_instructions_on() -> None:
    scripted = engine()

    await refined(program(SALT, search=Search(rounds=1, critic="evaluators")), scripted)

    [edit] = scripted.asked("revise")
    assert edit.prompt == 'Edit: Use all of these words: "salt". |  | '


async def test_evaluators_as_the_critic_are_satisfied_where_they_find_nothing() -> None:
    done = await refined(program(JUDGE, search=Search(critic="evaluators")), engine())

    assert (done.stop_reason, len(done.rounds)) == ("no_issues", 2)


async def test_no_critic_tells_the_revision_nothing() -> None:
    scripted = engine()

    await refined(program(SALT, search=Search(rounds=1, critic="none")), scripted)

    [edit] = scripted.asked("revise")
    assert edit.prompt == "Edit:  |  | "


async def test_edits_and_redrafts_take_turns_on_a_parent_that_breaks_rules() -> None:
    scripted = engine(Lines(revise=["One.", "Two.", "Three.", "Four."]))

    done = await refined(program(SALT, search=Search(rounds=4)), scripted)

    shown = [[turn.text for turn in call.conversation.turns()][1:] for call in scripted.asked("revise")]
    assert [turns[0] for turns in shown] == ["Waves.", 'Use all of these words: "salt".'] * 2
    assert [(c.form, c.parent) for ended in done.rounds[1:] for c in ended.candidates] == [
        ("edit", "c0"),
        ("redraft", None),
    ] * 2


async def test_branches_of_a_parent_that_breaks_rules_are_both_edits_and_redrafts() -> None:
    scripted = engine(Lines(revise=["One.", "Two.", "Three."]))

    done = await refined(program(SALT, search=Search(rounds=1, branches=3)), scripted)

    assert [(c.form, c.parent) for c in done.rounds[1].candidates] == [
        ("edit", "c0"),
        ("edit", "c0"),
        ("redraft", None),
    ]


async def test_a_parent_that_breaks_no_rule_is_only_edited() -> None:
    done = await refined(program(JUDGE, search=Search(rounds=3)), engine(Lines(revise=["One.", "Two.", "Three."])))

    assert [c.parent for ended in done.rounds[1:] for c in ended.candidates] == ["c0"] * 3


async def test_carry_last_goes_on_from_the_newest_and_still_returns_the_best() -> None:
    lines = Lines(revise=["One.", "Two.", "Three."], ratings={"One.": rated(1.0)})

    done = await refined(program(JUDGE, search=Search(rounds=3, carry="last")), engine(lines))

    assert [c.parent for ended in done.rounds[1:] for c in ended.candidates] == ["c0", "c1", "c2"]
    assert done.selected.text == "One."


async def test_a_failing_evaluator_loses_only_its_own_result() -> None:
    found = await events(program(SALT, Broken(), JUDGE, search=Search(rounds=0)), engine())

    [done] = of_type(found, Refined)
    results = done.assessments["c0"].evaluations
    assert [(e.evaluator, e.passed, e.score, e.error) for e in results] == [
        ("keywords", False, 0.0, None),
        ("broken", None, None, "OSError: no route to the evaluator"),
        ("judge", None, 0.5, None),
    ]
    assert [(e.evaluator, e.failed) for e in of_type(found, EvaluatorEnded)] == [
        ("keywords", False),
        ("broken", True),
        ("judge", False),
    ]


async def test_a_rule_that_was_never_checked_is_not_passed() -> None:
    done = await refined(program(FOAM, Broken(), draft="Foam.", search=Search(rounds=0)), engine())

    assert done.assessments["c0"].passed is None
    assert done.stop_reason == "rounds"


async def test_a_fresh_draft_that_repeats_an_earlier_one_ends_no_search() -> None:
    scripted = engine(Lines(draft=["Waves.", "Waves.", "Waves.", "Salt."]))

    done = await refined(program(SALT, search=Search(rounds=5, carry="none", critic="none")), scripted)

    assert (done.stop_reason, done.selected.text, len(scripted.calls)) == ("target", "Salt.", 4)


async def test_a_critic_is_not_satisfied_while_a_verifier_has_no_result() -> None:
    lines = Lines(draft=["Salt."], revise=["Salt one.", "Salt two."])

    done = await refined(program(SALT, Broken(), search=Search(rounds=2, critic="evaluators")), engine(lines))

    assert done.stop_reason == "rounds"


async def test_a_program_without_evaluators_returns_its_first_draft() -> None:
    done = await refined(program(search=Search(rounds=2)), engine(Lines(revise=["One.", "Two."])))

    assert (done.selected.id, done.stop_reason, done.assessments["c0"].score) == ("c0", "rounds", None)


@pytest.mark.parametrize("role", ["draft", "judge", "critique", "revise"])
async def test_closing_the_stream_of_events_ends_the_engine_work(role: CallRole) -> None:
    scripted = engine(Lines(draft=["One.", "Two.", "Three."]))
    reached = asyncio.Event()
    stall(scripted, lambda call: role_of(call) == role, reached.set)
    found = refine(program(JUDGE, search=Search(drafts=3, beam=3, branches=2, rounds=1)), Roles.single(scripted))

    async def listen() -> None:
        async for _ in found:
            pass

    listening = asyncio.create_task(listen())
    async with asyncio.timeout(5):
        await reached.wait()
    assert scripted.in_flight > 0
    listening.cancel()
    await asyncio.wait([listening])
    await found.aclose()

    assert scripted.in_flight == 0


async def test_a_seed_is_another_one_for_each_candidate() -> None:
    scripted = engine(Lines(draft=["One.", "Two."], revise=["Three.", "Four.", "Five.", "Six."]))
    wide = Search(drafts=2, beam=2, branches=2, rounds=1)

    await refined(program(JUDGE, search=wide, sampling=Sampling(seed=7)), scripted)

    seeds = [call.sampling.seed for call in [*scripted.asked("draft"), *scripted.asked("revise")]]
    assert sorted(seed for seed in seeds if seed is not None) == [7, 8, 9, 10, 11, 12]
