"""The rules at the top of policy.py, one by one."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engines.base import Completion, Usage
from service.evaluators.base import CriterionScore, Evaluation, Issue
from service.refinement import policy
from service.refinement.branching import Expansion
from service.refinement.candidate import Assessment, Candidate, Form
from service.refinement.policy import RoundFacts, StopReason
from service.refinement.program import Carry, Critic, Search, Select, Stop
from service.refinement.trust import JudgeTrust, TrustLevel
from tests.support.assessments import assessed_by_the_same, hard, judged, order_of, soft
from tests.support.scripts import REQUEST


def candidate(number: int, round: int = 0) -> Candidate:  # noqa: A002
    return Candidate(f"c{number}", round, "draft", None, REQUEST, Completion(f"text {number}", "stop", Usage()))


def assessment(*evaluations: Evaluation) -> Assessment:
    return Assessment(evaluations)


AT_FAULT = assessment(replace(hard(0.0), issues=(Issue("keywords", "missing: salt", "Use salt."),)))
FAULTLESS = assessment(hard(1.0))
CUT = replace(FAULTLESS, complete=False)


@pytest.mark.parametrize(
    ("challenger", "incumbent", "min_gain", "wins"),
    [
        pytest.param([hard(1.0)], [hard(0.0)], 0.0, True, id="a passed verifier beats a failed one"),
        pytest.param([hard(0.0)], [hard(1.0)], 0.0, False, id="and not the other way round"),
        pytest.param([hard(0.51)], [hard(0.50)], 1.0, True, id="verifiers decide by however little"),
        pytest.param([hard(0.49)], [hard(0.50)], 0.0, False, id="a little worse is worse"),
        pytest.param([hard(1.0)], [hard(1.0)], 0.0, False, id="the earlier wins a tie of verifiers"),
        pytest.param([soft(0.6)], [soft(0.5)], 1.0, True, id="soft verifiers decide by however little too"),
        pytest.param([hard(1.0), soft(0.0)], [hard(0.9), soft(1.0)], 0.0, True, id="hard before soft"),
        pytest.param([hard(1.0), judged(0.0)], [hard(0.9), judged(1.0)], 1.0, True, id="hard before judged"),
        pytest.param([soft(0.6), judged(0.0)], [soft(0.5), judged(1.0)], 1.0, True, id="soft before judged"),
        pytest.param([soft(0.5), judged(1.0)], [soft(0.6), judged(0.0)], 0.0, False, id="a judge overrules none"),
        pytest.param([hard(1.0), judged(0.6)], [hard(1.0), judged(0.5)], 0.0, True, id="a judge decides among equals"),
        pytest.param([judged(0.5)], [judged(0.5)], 0.0, False, id="the earlier wins a tie of judges"),
        pytest.param([judged(0.75)], [judged(0.5)], 0.25, False, id="a gain of min_gain is not more than it"),
        pytest.param([judged(0.75)], [judged(0.5)], 0.24, True, id="a gain of more than min_gain"),
        pytest.param([judged(0.75, 0.25)], [judged(0.5)], 0.0, False, id="a gain of the standard error"),
        pytest.param([judged(0.75, 0.24)], [judged(0.5)], 0.0, True, id="a gain of more than the standard error"),
        pytest.param([judged(0.75)], [judged(0.5, 0.9)], 0.0, True, id="the challenger's own error counts"),
        pytest.param([judged(0.75, 0.1)], [judged(0.5)], 0.3, False, id="min_gain holds beside a smaller error"),
        pytest.param([judged(None)], [judged(0.1)], 0.0, False, id="the judge abstained on the challenger"),
        pytest.param([judged(0.9)], [judged(None)], 0.0, False, id="the judge abstained on the incumbent"),
        pytest.param([hard(1.0), judged(None)], [hard(0.5), judged(0.9)], 0.0, True, id="verifiers need no judge"),
        pytest.param([hard(None)], [hard(0.1)], 0.0, False, id="a verifier that failed to run counts as 0"),
        pytest.param([], [], 0.0, False, id="nobody evaluates"),
    ],
)
def test_who_displaces_whom(
    challenger: Sequence[Evaluation], incumbent: Sequence[Evaluation], min_gain: float, wins: bool
) -> None:
    assert policy.displaces(Assessment(challenger), Assessment(incumbent), min_gain) is wins


@pytest.mark.parametrize(
    ("challenger", "incumbent"),
    [
        pytest.param([], [], id="nobody evaluates"),
        pytest.param([hard(1.0)], [hard(1.0)], id="verifiers leave it open"),
        pytest.param([hard(0.0), soft(0.5)], [hard(0.0), soft(0.5)], id="neither passes"),
        pytest.param([judged(0.1)], [judged(0.9)], id="a judge prefers the other"),
        pytest.param([judged(None)], [judged(0.9)], id="a judge abstained"),
    ],
)
@pytest.mark.parametrize("level", ["drive", "break_ties", "none"])
def test_a_text_that_came_to_its_end_displaces_one_that_was_cut_unless_verifiers_tell_them_apart(
    challenger: Sequence[Evaluation], incumbent: Sequence[Evaluation], level: TrustLevel
) -> None:
    whole, cut = Assessment(challenger), Assessment(incumbent, complete=False)

    assert policy.displaces(whole, cut, 0.0, JudgeTrust(level))
    assert not policy.displaces(cut, whole, 0.0, JudgeTrust(level))


def test_a_text_that_was_cut_displaces_one_that_passes_less() -> None:
    assert policy.displaces(replace(assessment(soft(0.6)), complete=False), assessment(soft(0.5)), 0.0)
    assert not policy.displaces(assessment(soft(0.5)), replace(assessment(soft(0.6)), complete=False), 0.0)


@pytest.mark.parametrize("who", ["challenger", "incumbent"])
def test_one_of_two_judges_that_abstained_on_one_gives_no_reason_to_change(who: str) -> None:
    both = assessment(judged(0.5, evaluator="first"), judged(0.5, evaluator="second"))
    better_but_half_known = assessment(judged(0.9, evaluator="first"), judged(None, evaluator="second"))

    if who == "challenger":
        assert not policy.displaces(better_but_half_known, both, 0.0)
    else:
        assert not policy.displaces(both, better_but_half_known, 0.0)


@pytest.mark.parametrize(
    ("challenger", "incumbent", "wins"),
    [
        (None, None, False),
        (None, assessment(hard(0.0)), False),
        (assessment(hard(1.0)), None, True),
        (assessment(hard(0.9)), None, False),
        (assessment(soft(1.0)), None, False),
        (assessment(judged(1.0)), None, False),
        (assessment(hard(1.0), hard(None)), None, False),
    ],
)
def test_one_that_was_not_evaluated_displaces_none_and_yields_only_to_one_that_passes(
    challenger: Assessment | None, incumbent: Assessment | None, wins: bool
) -> None:
    assert policy.displaces(challenger, incumbent, 0.0) is wins


@given(assessed_by_the_same(least=1, most=8), st.sampled_from([0.0, 0.1, 0.5, 1.0]))
def test_the_incumbent_never_ranks_below_the_first(assessments: list[Assessment], min_gain: float) -> None:
    first, *challengers = assessments
    incumbent = first
    for challenger in challengers:
        if policy.displaces(challenger, incumbent, min_gain):
            assert order_of(challenger) > order_of(incumbent)
            incumbent = challenger

    assert order_of(incumbent) >= order_of(first)


@given(assessed_by_the_same(least=2, most=2), st.floats(0.0, 1.0))
def test_two_candidates_never_displace_each_other(pair: list[Assessment], min_gain: float) -> None:
    first, second = pair

    assert not (policy.displaces(first, second, min_gain) and policy.displaces(second, first, min_gain))


def test_candidates_are_ordered_by_hard_then_soft_then_cut_or_not_then_judged_and_the_unknown_come_last() -> None:
    assessments = {
        "c8": replace(assessment(hard(1.0), soft(0.5), judged(1.0)), complete=False),
        "c0": assessment(hard(0.5), soft(1.0), judged(1.0)),
        "c2": assessment(hard(1.0), soft(0.2), judged(0.9)),
        "c3": assessment(hard(1.0), soft(0.5), judged(0.1)),
        "c4": assessment(hard(1.0), soft(0.5), judged(0.3)),
        "c5": assessment(hard(1.0), soft(0.5), judged(0.3)),
        "c6": assessment(hard(0.0), soft(0.0), judged(None)),
    }

    found = policy.ordered([candidate(number) for number in range(9)], assessments)

    assert [c.id for c in found] == ["c4", "c5", "c3", "c8", "c2", "c0", "c6", "c1", "c7"]


@given(assessed_by_the_same(least=1, most=8))
def test_the_order_is_that_of_the_ranks_and_keeps_equals_as_they_came(assessments: list[Assessment]) -> None:
    candidates = [candidate(number) for number in range(len(assessments))]
    by_id = {c.id: known for c, known in zip(candidates, assessments, strict=True)}

    found = policy.ordered(candidates, by_id)

    assert found == sorted(candidates, key=lambda c: order_of(by_id[c.id]), reverse=True)


@pytest.mark.parametrize(
    ("carry", "beam", "expected"),
    [
        ("best", 1, ["c0"]),
        ("best", 2, ["c0", "c2"]),
        ("best", 9, ["c0", "c2", "c1", "c3", "c4"]),
        ("none", 2, ["c0", "c2"]),
        ("last", 1, ["c3"]),
        ("last", 2, ["c3", "c4"]),
        ("last", 9, ["c3", "c4"]),
    ],
)
def test_parents_are_the_best_of_all_led_by_the_incumbent_or_the_best_of_the_newest(
    carry: Carry, beam: int, expected: list[str]
) -> None:
    candidates = [candidate(0), candidate(1), candidate(2, 1), candidate(3, 2), candidate(4, 2)]
    scores = {"c0": 0.7, "c1": 0.5, "c2": 0.8, "c3": 0.4, "c4": 0.3}
    assessments = {name: assessment(judged(score)) for name, score in scores.items()}

    found = policy.parents(candidates, assessments, candidates[0], Search(carry=carry, beam=beam))

    assert [c.id for c in found] == expected


@pytest.mark.parametrize(
    ("carry", "critic", "known", "expected"),
    [
        ("best", "auto", FAULTLESS, ["edit", "edit", "edit", "edit"]),
        ("last", "auto", FAULTLESS, ["edit", "edit", "edit", "edit"]),
        ("best", "auto", None, ["edit", "edit", "edit", "edit"]),
        ("best", "auto", AT_FAULT, ["edit", "redraft", "edit", "redraft"]),
        ("last", "auto", AT_FAULT, ["edit", "redraft", "edit", "redraft"]),
        ("best", "model", AT_FAULT, ["edit", "redraft", "edit", "redraft"]),
        ("best", "none", AT_FAULT, ["edit", "edit", "edit", "edit"]),
        ("none", "auto", FAULTLESS, ["redraft", "redraft", "redraft", "redraft"]),
        ("none", "auto", AT_FAULT, ["redraft", "redraft", "redraft", "redraft"]),
        ("none", "none", AT_FAULT, ["redraft", "redraft", "redraft", "redraft"]),
    ],
)
def test_which_revisions_of_a_parent_are_redrafts(
    carry: Carry, critic: Critic, known: Assessment | None, expected: list[Form]
) -> None:
    parent = candidate(0)
    one = Search(carry=carry, critic=critic)
    four = replace(one, branches=4)

    in_turn = [policy.revisions(parent, known, earlier, one) for earlier in range(4)]
    at_once = policy.revisions(parent, known, 0, four)

    assert in_turn == [[Expansion(form, parent)] for form in expected]
    assert at_once == [Expansion(form, parent) for form in expected]


@pytest.mark.parametrize(
    ("critic", "known", "principles", "asked"),
    [
        ("auto", FAULTLESS, (), True),
        ("auto", None, (), True),
        ("auto", AT_FAULT, (), False),
        ("auto", AT_FAULT, ("Be kind.",), True),
        ("auto", FAULTLESS, ("Be kind.",), True),
        ("auto", CUT, (), False),
        ("auto", CUT, ("Be kind.",), True),
        ("model", CUT, (), True),
        ("evaluators", CUT, (), False),
        ("model", AT_FAULT, (), True),
        ("model", FAULTLESS, (), True),
        ("factored", AT_FAULT, (), True),
        ("factored", FAULTLESS, (), True),
        ("evaluators", FAULTLESS, ("Be kind.",), False),
        ("evaluators", AT_FAULT, (), False),
        ("none", FAULTLESS, ("Be kind.",), False),
        ("none", AT_FAULT, (), False),
    ],
)
def test_when_the_model_is_the_critic(
    critic: Critic, known: Assessment | None, principles: Sequence[str], asked: bool
) -> None:
    assert policy.asks_model(critic, known, principles) is asked


@pytest.mark.parametrize(
    ("challenger", "incumbent", "open_to_the_model"),
    [
        ([hard(1.0)], [hard(1.0)], True),
        ([hard(1.0), soft(0.5), judged(0.1)], [hard(1.0), soft(0.5), judged(0.9)], True),
        ([], [], True),
        ([hard(1.0)], [hard(0.9)], False),
        ([hard(0.9)], [hard(1.0)], False),
        ([hard(1.0), soft(0.5)], [hard(1.0), soft(0.4)], False),
        (None, [hard(1.0)], False),
        ([hard(1.0)], None, False),
        (None, None, False),
    ],
)
def test_which_pairs_the_verifiers_leave_open(
    challenger: Sequence[Evaluation] | None, incumbent: Sequence[Evaluation] | None, open_to_the_model: bool
) -> None:
    new, old = (None if known is None else Assessment(known) for known in (challenger, incumbent))

    assert policy.comparable(new, old) is open_to_the_model


@given(assessed_by_the_same(least=2, most=2))
def test_the_model_is_never_asked_about_a_pair_that_something_else_tells_apart(pair: list[Assessment]) -> None:
    first, second = pair
    apart = order_of(first)[:3] != order_of(second)[:3]

    assert policy.comparable(first, second) is policy.comparable(second, first) is not apart


@pytest.mark.parametrize(
    ("critic", "known", "forms"),
    [
        ("auto", AT_FAULT, {"draft", "redraft", "edit"}),
        ("evaluators", AT_FAULT, {"draft", "redraft", "edit"}),
        ("none", AT_FAULT, {"draft", "edit"}),
        ("auto", FAULTLESS, {"draft", "edit"}),
    ],
)
def test_carry_adaptive_makes_beam_times_branches_of_every_form_that_has_something_to_say(
    critic: Critic, known: Assessment, forms: set[Form]
) -> None:
    search = Search(beam=20, branches=10, carry="adaptive", critic=critic)

    found = policy.expansions([candidate(0)], {"c0": known}, search, random.Random(1))

    assert len(found) == 200
    assert {expansion.form for expansion in found} == forms


def test_to_carry_adaptive_a_draft_that_was_not_evaluated_has_failed() -> None:
    drafts = [candidate(number) for number in range(40)]
    search = Search(beam=100, carry="adaptive")

    def drafted(assessments: Mapping[str, Assessment]) -> int:
        found = policy.expansions(drafts, assessments, search, random.Random(1))
        return sum(expansion.form == "draft" for expansion in found)

    assert drafted({}) < 20
    assert drafted({draft.id: FAULTLESS for draft in drafts}) > 70


def test_peers_are_those_that_the_verifiers_cannot_tell_from_the_incumbent() -> None:
    candidates = [candidate(number) for number in range(6)]
    assessments = {
        "c0": assessment(hard(0.5), soft(1.0), judged(0.9)),
        "c1": assessment(hard(1.0), soft(0.5), judged(0.1)),
        "c2": assessment(hard(1.0), soft(0.4), judged(0.9)),
        "c4": assessment(hard(1.0), soft(0.5), judged(0.8)),
        "c5": assessment(hard(1.0), soft(0.5), judged(None)),
    }

    found = policy.peers(candidates, assessments, candidates[4])

    assert [c.id for c in found] == ["c1", "c4", "c5"]


def test_a_text_that_was_cut_is_no_peer_of_one_that_came_to_its_end() -> None:
    candidates = [candidate(0), candidate(1), candidate(2)]

    found = policy.peers(candidates, {"c0": CUT, "c1": FAULTLESS, "c2": FAULTLESS}, candidates[1])

    assert [c.id for c in found] == ["c1", "c2"]


def test_an_incumbent_that_was_not_evaluated_has_no_peer_but_itself() -> None:
    candidates = [candidate(0), candidate(1)]

    assert policy.peers(candidates, {"c1": assessment(hard(1.0))}, candidates[0]) == [candidates[0]]


FAILED = replace(hard(None), error="broken")
GOING_ON = RoundFacts(
    number=1,
    incumbent=assessment(hard(0.5)),
    new=(assessment(hard(0.5)),),
    critic_satisfied=False,
    only_repeats=False,
    rounds_without_gain=0,
)
HOLDING: Mapping[str, Mapping[str, Any]] = {
    "evaluators_failed": {"new": (assessment(FAILED), assessment(FAILED))},
    "target": {"incumbent": assessment(hard(1.0))},
    "no_issues": {"critic_satisfied": True},
    "fixpoint": {"only_repeats": True},
    "patience": {"rounds_without_gain": 2},
    "rounds": {"number": 3},
}
"""The stop rules in their order, and the facts that make each hold."""


@pytest.mark.parametrize("reason", HOLDING)
def test_each_stop_rule_holds_by_itself(reason: StopReason) -> None:
    facts = replace(GOING_ON, **HOLDING[reason])

    assert policy.stop_reason(facts, Search(rounds=3), Stop(patience=2)) == reason


@pytest.mark.parametrize("index", range(len(HOLDING)))
def test_the_first_stop_rule_that_holds_is_the_reason(index: int) -> None:
    facts = GOING_ON
    for reason in list(HOLDING)[index:]:
        facts = replace(facts, **HOLDING[reason])

    assert policy.stop_reason(facts, Search(rounds=3), Stop(patience=2)) == list(HOLDING)[index]


def test_where_no_rule_holds_the_loop_goes_on() -> None:
    assert policy.stop_reason(GOING_ON, Search(rounds=2), Stop(patience=1)) is None


@pytest.mark.parametrize(
    ("incumbent", "target", "reached"),
    [
        ([hard(1.0)], None, True),
        ([hard(1.0), soft(1.0)], None, True),
        ([hard(1.0), soft(0.9)], None, True),
        ([hard(1.0), soft(0.9)], 1.0, False),
        ([soft(1.0), soft(0.9)], None, False),
        ([hard(None), soft(1.0)], None, False),
        ([hard(0.9)], None, False),
        ([hard(1.0), hard(None)], None, False),
        ([soft(1.0)], None, True),
        ([hard(1.0), judged(1.0)], None, False),
        ([judged(1.0)], None, False),
        ([], None, False),
        ([hard(1.0), judged(0.6)], 0.8, True),  # its score is 0.5 + 0.6 / 2
        ([hard(1.0), judged(0.6)], 0.81, False),
        ([hard(0.9), judged(1.0)], 0.4, False),  # a hard verifier fails, whatever the score
        ([hard(0.0)], 0.0, False),
        ([soft(0.0), judged(0.5)], 0.0, True),
        ([judged(0.75)], 0.75, True),
        ([judged(0.74)], 0.75, False),
        ([judged(None)], 0.0, False),
        ([], 0.0, False),
    ],
)
def test_when_the_target_is_reached(incumbent: Sequence[Evaluation], target: float | None, reached: bool) -> None:
    facts = replace(GOING_ON, incumbent=Assessment(incumbent))

    assert (policy.stop_reason(facts, Search(), Stop(target=target)) == "target") is reached


def test_an_incumbent_that_was_not_evaluated_reaches_no_target() -> None:
    assert policy.stop_reason(replace(GOING_ON, incumbent=None), Search(), Stop(target=0.0)) is None


@pytest.mark.parametrize(
    "new",
    [
        (assessment(FAILED), assessment(hard(0.5))),
        (assessment(FAILED, hard(0.5)),),
        (assessment(judged(None)),),
        (assessment(),),
        (),
    ],
)
def test_one_evaluation_without_an_error_is_enough_to_go_on(new: tuple[Assessment, ...]) -> None:
    assert policy.stop_reason(replace(GOING_ON, new=new), Search(), Stop()) is None


def test_a_judge_that_abstained_on_one_criterion_gives_no_reason_to_change() -> None:
    lines = [CriterionScore("a", 1.0, 0.0, 1.0), CriterionScore("b", None, None, 0.1)]
    sure = replace(judged(0.1), criteria=(CriterionScore("a", 0.1, 0.0, 1.0), CriterionScore("b", 0.1, 0.0, 1.0)))
    unsure = replace(judged(1.0), criteria=tuple(lines))

    assert not policy.displaces(Assessment([unsure]), Assessment([sure]), 0.0)


@pytest.mark.parametrize(("complete", "reward"), [(True, 0.4), (False, 0.0)])
def test_an_edit_that_completes_a_cut_text_is_better_than_it(complete: bool, reward: float) -> None:
    cut, edit = candidate(0), replace(candidate(1), form="edit", parent="c0")
    assessments = {
        "c0": replace(assessment(judged(0.6)), complete=False),
        "c1": replace(assessment(judged(0.4)), complete=complete),
    }

    assert policy._reward(edit, assessments) == reward
    assert policy._reward(cut, assessments) == 0.6


def test_an_edit_that_is_no_better_than_its_parent_speaks_against_editing() -> None:
    draft = candidate(0)
    copy, better = (replace(candidate(number, 1), form="edit", parent="c0") for number in (1, 2))
    assessments = {"c0": assessment(judged(0.8)), "c1": assessment(judged(0.8)), "c2": assessment(judged(0.9))}

    assert [policy._reward(made, assessments) for made in (draft, copy, better)] == [0.8, 0.0, 0.9]


@pytest.mark.parametrize(("level", "wins"), [("drive", True), ("break_ties", True), ("none", False)])
@pytest.mark.parametrize("verifiers", [[], [hard(1.0)], [hard(0.5), soft(0.5)]])
def test_a_challenger_that_only_an_untrusted_judge_prefers_does_not_win(
    level: TrustLevel, wins: bool, verifiers: Sequence[Evaluation]
) -> None:
    challenger, incumbent = assessment(*verifiers, judged(0.9)), assessment(*verifiers, judged(0.1))

    assert policy.displaces(challenger, incumbent, 0.0, JudgeTrust(level)) is wins


def test_verifiers_need_no_trust_in_the_judge() -> None:
    assert policy.displaces(
        assessment(hard(1.0), judged(0.1)), assessment(hard(0.9), judged(0.9)), 0.0, JudgeTrust("none")
    )


@pytest.mark.parametrize(("others", "wins"), [((0.6, 0.5), True), ((0.5, 0.5), False), ((None, 0.5), False)])
def test_another_judge_than_the_model_has_an_authority_of_its_own(
    others: tuple[float | None, float | None], wins: bool
) -> None:
    new, old = (judged(score, evaluator="webhook") for score in others)

    assert policy.displaces(assessment(judged(0.9), new), assessment(judged(0.1), old), 0.0, JudgeTrust("none")) is wins


def test_an_untrusted_judge_may_still_speak_against_a_challenger() -> None:
    """Else the returned text could score below the first draft."""
    worse = assessment(judged(0.1), judged(0.6, evaluator="webhook"))
    better = assessment(judged(0.9), judged(0.5, evaluator="webhook"))

    assert not policy.displaces(worse, better, 0.0, JudgeTrust("none"))


@given(assessed_by_the_same(2, 2), st.sampled_from(["break_ties", "none"]))
def test_less_trust_displaces_nobody_whom_full_trust_keeps(both: list[Assessment], level: TrustLevel) -> None:
    challenger, incumbent = both
    if policy.displaces(challenger, incumbent, 0.0, JudgeTrust(level)):
        assert policy.displaces(challenger, incumbent, 0.0)


DEPENDING = assessment(hard(1.0), judged(0.5))


@pytest.mark.parametrize("level", ["break_ties", "none"])
@pytest.mark.parametrize(
    ("critic", "known", "principles", "asked"),
    [
        ("auto", DEPENDING, (), False),
        ("auto", DEPENDING, ("Be kind.",), False),
        ("auto", assessment(judged(0.5)), (), False),
        ("auto", AT_FAULT, ("Be kind.",), True),
        ("auto", AT_FAULT, (), False),
        ("auto", None, (), True),
        ("auto", FAULTLESS, (), True),
        ("auto", assessment(judged(0.5), judged(0.5, evaluator="webhook")), (), True),
        ("auto", assessment(hard(1.0), replace(hard(None), error="gone"), judged(0.5)), (), True),
        ("model", DEPENDING, (), True),
        ("factored", DEPENDING, (), True),
        ("evaluators", DEPENDING, (), False),
    ],
)
def test_the_model_is_not_asked_for_the_sake_of_a_judge_that_may_not_drive(
    level: TrustLevel, critic: Critic, known: Assessment | None, principles: Sequence[str], asked: bool
) -> None:
    assert policy.asks_model(critic, known, principles, trust=JudgeTrust(level)) is asked


@pytest.mark.parametrize("level", ["drive", "break_ties", "none"])
@pytest.mark.parametrize(
    ("incumbent", "critic", "select", "stops"),
    [
        (DEPENDING, "auto", "score", True),
        (assessment(judged(0.5)), "auto", "score", True),
        (replace(DEPENDING, complete=False), "auto", "score", False),
        (assessment(judged(None)), "auto", "score", True),
        (DEPENDING, "model", "score", False),
        (DEPENDING, "factored", "score", False),
        (DEPENDING, "none", "score", False),
        (DEPENDING, "evaluators", "score", False),
        (assessment(), "auto", "pairwise", False),
        (assessment(*AT_FAULT.evaluations, judged(0.5)), "auto", "score", False),
        (assessment(judged(0.5), judged(0.5, evaluator="webhook")), "auto", "score", False),
        (None, "auto", "score", False),
    ],
)
def test_the_loop_does_not_go_on_for_the_sake_of_a_judge_that_may_not_drive(
    level: TrustLevel, incumbent: Assessment | None, critic: Critic, select: Select, stops: bool
) -> None:
    facts = replace(GOING_ON, incumbent=incumbent, new=())
    reason = policy.stop_reason(facts, Search(critic=critic, select=select), Stop(target=1.0), JudgeTrust(level))

    assert reason == ("untrusted" if stops and level != "drive" else None)


def test_a_search_without_further_rounds_ends_by_rounds_whatever_the_trust() -> None:
    facts = replace(GOING_ON, incumbent=DEPENDING)

    assert policy.stop_reason(facts, Search(rounds=facts.number), Stop(target=1.0), JudgeTrust("none")) == "rounds"
