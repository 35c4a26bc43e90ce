"""Whatever rules come together: what is enforced holds for every text that a grammar lets end."""

import math
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.constraints.algebra import (
    Constraint,
    Contradiction,
    Counter,
    Demand,
    Included,
    ParagraphStart,
    Suffix,
)
from service.constraints.automaton import find_dead_ends
from service.constraints.building import Builder
from service.constraints.compile import TOKENS_PER_WORD, compile_constraints
from service.constraints.plan import make_plan, needs_words
from service.evaluators.base import Verifier
from tests.support.masked_walks import word_walker
from tests.support.rule_sets import check_by_walking, constraints_of, rule_sets

EXAMPLES = settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])


@EXAMPLES
@given(rule_sets, st.sampled_from((None, 60, 100, 400)), st.integers(0, 1_000_000))
def test_every_text_that_may_end_passes_every_enforced_rule(
    verifiers: Sequence[Verifier], max_tokens: int | None, seed: int
) -> None:
    check_by_walking(word_walker(), verifiers, max_tokens, seed)


@EXAMPLES
@given(rule_sets, st.none() | st.integers(12, 60))
def test_no_state_of_a_grammar_leads_nowhere(verifiers: Sequence[Verifier], cap: int | None) -> None:
    try:
        max_tokens = None if cap is None else math.ceil(cap * TOKENS_PER_WORD)
        compiled = compile_constraints(constraints_of(verifiers), max_tokens=max_tokens)
    except Contradiction:
        return
    if compiled.grammar is not None and needs_words(compiled.enforced):
        assert not dead_ends(compiled.enforced, cap)


@pytest.mark.parametrize(
    "demands",
    [
        (Counter("sentences", least=2), Counter("words", 8, 18), Counter("lines", most=4)),
        (Counter("sentences", least=3), Counter("lines", 3, 4), Suffix("!")),
        (Counter("paragraphs", 4, 5), ParagraphStart(2, "Finally"), Included(("light", "time", "rain"))),
    ],
)
def test_none_does_where_several_units_are_counted(demands: Sequence[Demand]) -> None:
    assert not dead_ends([Constraint(f"rule{number}", demand) for number, demand in enumerate(demands)], cap=35)


def dead_ends(constraints: Sequence[Constraint], cap: int | None) -> Sequence[str]:
    plan = make_plan(constraints, cap)
    if plan.cap is None:
        return ()
    builder = Builder(plan)
    builder.build()
    return find_dead_ends(builder.machine, builder.fields)
