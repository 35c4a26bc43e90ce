"""How many engine calls a program costs, by role: as many as its search needs, and not one more."""

from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

import pytest

from service.evaluators.base import Evaluator
from service.evaluators.model.judge import Criterion, Judge
from service.evaluators.text.length import Length
from service.refinement.events import Refined
from service.refinement.policy import StopReason
from service.refinement.program import PRESETS, Carry, Critic, Search, Select, Stop
from service.refinement.roles import CallRole
from tests.support.scripts import SALT, BilledEngine, Lines, engine, program, rated, refined

Counts = dict[CallRole, int]
ONE_WORD = Length(unit="words", max=1)
DRAFTS = ("Salt one.", "Salt two.", "Salt three.", "Salt four.", "Salt five.")
REVISIONS = tuple(f"More salt {number}." for number in range(40))
PRINCIPLES = ("Be kind.",)
SELF_REFINE = PRESETS["self_refine"]
SATISFIED: Sequence[Sequence[str]] = ((),)


def judge(criteria: int) -> Judge:
    return Judge(
        criteria=tuple(Criterion(name=f"c{number}", question=f"Is it {number}?") for number in range(criteria))
    )


def cost(done: Refined, scripted: BilledEngine) -> Counts:
    """The calls in the account, which are those that the engine got."""
    assert done.usage == scripted.bill
    counts = {role: usage.calls for role, usage in done.usage.items()}
    assert sum(counts.values()) == len(scripted.calls)
    return counts


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        ("self_refine", {"draft": 1}),
        ("best_of_n", {"draft": 4}),
        ("vote", {"draft": 5, "judge": 1}),
        ("beam", {"draft": 4}),
        ("reflexion", {"draft": 1}),
        ("constitutional", {"draft": 1}),
        ("adaptive", {"draft": 4}),
    ],
)
async def test_drafts_that_pass_every_verifier_cost_the_drafts_and_nothing_else(preset: str, expected: Counts) -> None:
    scripted = engine(Lines(draft=DRAFTS, vote=[0.2] * 5))

    done = await refined(program(SALT, search=PRESETS[preset], principles=PRINCIPLES), scripted)

    assert (cost(done, scripted), done.stop_reason, len(done.rounds)) == (expected, "target", 1)


def test_every_preset_is_in_the_tables() -> None:
    assert set(PRESETS) == {"self_refine", "best_of_n", "vote", "beam", "reflexion", "constitutional", "adaptive"}


async def test_a_vote_that_the_texts_themselves_decide_costs_no_call() -> None:
    scripted = engine(Lines(draft=["Salt."]))

    done = await refined(program(SALT, search=PRESETS["vote"]), scripted)

    assert (cost(done, scripted), done.stop_reason) == ({"draft": 5}, "target")


@pytest.mark.parametrize("carry", get_args(Carry))
@pytest.mark.parametrize("critic", get_args(Critic))
@pytest.mark.parametrize("select", get_args(Select))
async def test_one_draft_that_passes_costs_one_call_however_the_search_is_set(
    carry: Carry, critic: Critic, select: Select
) -> None:
    scripted = engine(Lines(draft=["Salt."], questions=["Is it?"]))
    search = Search(carry=carry, critic=critic, select=select)

    done = await refined(program(SALT, search=search, principles=PRINCIPLES), scripted)

    assert (cost(done, scripted), done.stop_reason) == ({"draft": 1}, "target")


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("select", ["score", "pairwise"])
async def test_the_callers_own_draft_that_passes_costs_no_call(preset: str, select: Select) -> None:
    scripted = engine()
    search = PRESETS[preset] if preset == "vote" else replace(PRESETS[preset], select=select)

    done = await refined(program(SALT, search=search, draft="Salt.", principles=PRINCIPLES), scripted)

    assert (done.usage, scripted.calls, done.stop_reason, done.selected.text) == ({}, [], "target", "Salt.")


@pytest.mark.parametrize("criteria", [1, 2, 3])
@pytest.mark.parametrize("verifiers", [(), (SALT,)], ids=["judge alone", "verifier and judge"])
@pytest.mark.parametrize(
    ("search", "drafts", "critiques", "reason"),
    [
        pytest.param(SELF_REFINE, 1, 1, "no_issues", id="self_refine"),
        pytest.param(PRESETS["best_of_n"], 4, 0, "rounds", id="best_of_n"),
        pytest.param(PRESETS["beam"], 4, 2, "no_issues", id="beam"),
        pytest.param(PRESETS["reflexion"], 1, 1, "no_issues", id="reflexion"),
        pytest.param(PRESETS["constitutional"], 1, 1, "no_issues", id="constitutional"),
        pytest.param(Search(critic="model"), 1, 1, "no_issues", id="critic model"),
        pytest.param(Search(critic="factored"), 1, 4, "no_issues", id="critic factored, with two questions"),
        pytest.param(Search(critic="evaluators"), 1, 0, "no_issues", id="critic evaluators"),
    ],
)
async def test_a_judge_costs_a_call_a_criterion_and_one_more_and_a_satisfied_critic_one_a_parent(
    criteria: int,
    verifiers: Sequence[Evaluator],
    search: Search,
    drafts: int,
    critiques: int,
    reason: StopReason,
) -> None:
    scripted = engine(Lines(draft=DRAFTS, critique=SATISFIED, questions=["Is it?", "Was it?"]))

    done = await refined(program(*verifiers, judge(criteria), search=search), scripted)

    expected: Counts = {"draft": drafts, "judge": drafts * (criteria + 1), "critique": critiques}
    assert cost(done, scripted) == {role: count for role, count in expected.items() if count}
    assert done.stop_reason == reason


async def test_without_a_critic_every_round_costs_a_revision_and_its_judging() -> None:
    scripted = engine(Lines(revise=REVISIONS))

    done = await refined(program(judge(2), search=Search(rounds=3, critic="none")), scripted)

    assert (cost(done, scripted), done.stop_reason) == ({"draft": 1, "judge": 3 * 4, "revise": 3}, "rounds")


async def test_a_stated_target_that_the_draft_reaches_costs_no_critique() -> None:
    scripted = engine(Lines(ratings={"Waves.": rated(1.0)}))

    done = await refined(program(judge(1), stop=Stop(target=1.0)), scripted)

    assert (cost(done, scripted), done.stop_reason) == ({"draft": 1, "judge": 2}, "target")


@pytest.mark.parametrize(
    ("search", "expected"),
    [
        pytest.param(SELF_REFINE, {"draft": 1, "revise": 1}, id="self_refine"),
        pytest.param(PRESETS["beam"], {"draft": 4, "revise": 4}, id="beam"),
        pytest.param(PRESETS["reflexion"], {"draft": 1, "revise": 1}, id="reflexion"),
        pytest.param(PRESETS["constitutional"], {"draft": 1, "revise": 1}, id="constitutional"),
        pytest.param(Search(critic="evaluators"), {"draft": 1, "revise": 1}, id="critic evaluators"),
        pytest.param(Search(critic="none"), {"draft": 1, "revise": 1}, id="critic none"),
        pytest.param(Search(critic="model"), {"draft": 1, "critique": 3, "revise": 1}, id="critic model"),
        pytest.param(
            Search(critic="factored"), {"draft": 1, "critique": 6, "revise": 1}, id="critic factored, two questions"
        ),
        pytest.param(Search(carry="last"), {"draft": 1, "revise": 1}, id="carry last"),
        pytest.param(Search(carry="none"), {"draft": 1, "revise": 1}, id="carry none"),
        pytest.param(Search(branches=2), {"draft": 1, "revise": 2}, id="two branches"),
        pytest.param(Search(select="pairwise"), {"draft": 1, "revise": 1}, id="select pairwise"),
        pytest.param(Search(select="vote"), {"draft": 1, "revise": 1}, id="select vote"),
    ],
)
async def test_drafts_that_fail_a_rule_cost_the_revisions_that_mend_it_and_nothing_else(
    search: Search, expected: Counts
) -> None:
    scripted = engine(Lines(draft=DRAFTS, revise=["Salt."], questions=["Is it?", "Was it?"]))

    done = await refined(program(ONE_WORD, search=search), scripted)

    assert cost(done, scripted) == expected
    assert (done.stop_reason, done.selected.text, len(done.rounds)) == ("target", "Salt.", 2)


async def test_principles_cost_a_critique_though_a_rule_is_broken() -> None:
    scripted = engine(Lines(draft=DRAFTS, revise=["Salt."]))

    done = await refined(program(ONE_WORD, principles=PRINCIPLES), scripted)

    assert cost(done, scripted) == {"draft": 1, "critique": 3, "revise": 1}


async def test_best_of_n_that_all_fail_are_not_revised() -> None:
    scripted = engine(Lines(draft=DRAFTS))

    done = await refined(program(ONE_WORD, search=PRESETS["best_of_n"]), scripted)

    assert (cost(done, scripted), done.stop_reason) == ({"draft": 4}, "rounds")


@pytest.mark.parametrize("rounds", [1, 2, 3])
async def test_a_rule_that_stays_broken_costs_one_revision_a_round(rounds: int) -> None:
    scripted = engine(Lines(draft=DRAFTS, revise=REVISIONS))

    done = await refined(program(ONE_WORD, search=Search(rounds=rounds)), scripted)

    assert (cost(done, scripted), done.stop_reason) == ({"draft": 1, "revise": rounds}, "rounds")


@pytest.mark.parametrize("criteria", [1, 3])
async def test_the_model_is_the_critic_only_once_the_rules_are_met(criteria: int) -> None:
    scripted = engine(Lines(draft=DRAFTS, revise=["Salt."], critique=SATISFIED))

    done = await refined(program(ONE_WORD, judge(criteria), search=Search(rounds=3)), scripted)

    assert cost(done, scripted) == {"draft": 1, "judge": 2 * (criteria + 1), "critique": 1, "revise": 1}
    assert (done.stop_reason, len(done.rounds)) == ("no_issues", 3)


@pytest.mark.parametrize(
    ("texts", "comparisons"),
    [(["Salt."], 0), (["Salt.", "Salt one."], 1), (["Salt.", "Salt one.", "Salt two.", "Salt three."], 3)],
)
async def test_each_draft_that_verifiers_cannot_tell_from_the_incumbent_costs_two_calls(
    texts: Sequence[str], comparisons: int
) -> None:
    scripted = engine(Lines(draft=texts))

    done = await refined(program(SALT, search=Search(drafts=4, rounds=0, select="pairwise")), scripted)

    expected: Counts = {"draft": 4, "judge": 2 * comparisons}
    assert cost(done, scripted) == {role: count for role, count in expected.items() if count}


async def test_pairwise_without_evaluators_costs_a_critique_a_revision_and_two_orders_a_round() -> None:
    scripted = engine(Lines(revise=REVISIONS))

    done = await refined(program(search=Search(rounds=3, select="pairwise")), scripted)

    # No revision is preferred, so each round has the same parent, already criticised.
    assert (cost(done, scripted), done.stop_reason) == (
        {"draft": 1, "critique": 3, "revise": 3, "judge": 6},
        "rounds",
    )


async def test_a_satisfied_critic_leaves_pairwise_nothing_to_compare() -> None:
    scripted = engine(Lines(critique=SATISFIED))

    done = await refined(program(search=Search(rounds=3, select="pairwise")), scripted)

    assert (cost(done, scripted), done.stop_reason) == ({"draft": 1, "critique": 2}, "no_issues")


@pytest.mark.parametrize(("beam", "branches", "rounds"), [(1, 1, 1), (2, 1, 6), (2, 3, 2)])
async def test_adaptive_costs_beam_times_branches_texts_a_round(beam: int, branches: int, rounds: int) -> None:
    scripted = engine(Lines(draft=[f"Old salt {number}." for number in range(40)], revise=REVISIONS))
    search = Search(drafts=2, beam=beam, branches=branches, rounds=rounds, carry="adaptive")

    done = await refined(program(ONE_WORD, search=search), scripted)

    counts = cost(done, scripted)
    assert set(counts) <= {"draft", "revise"}
    assert sum(counts.values()) == 2 + rounds * beam * branches
    assert [len(ended.candidates) for ended in done.rounds] == [2, *([beam * branches] * rounds)]
    assert done.stop_reason == "rounds"
