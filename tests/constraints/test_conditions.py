from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.constraints.conditions import (
    ALWAYS,
    NEVER,
    Condition,
    Field,
    Layout,
    at_least,
    every,
    holds,
    less,
    negate,
    shift,
    some,
    write_condition,
)

WORDS, LINES = Field("words", 0, 6), Field("lines", 6, 9)

leaves = st.one_of(
    st.builds(less, st.sampled_from((WORDS, LINES)), st.integers(-2, 70)),
    st.builds(at_least, st.sampled_from((WORDS, LINES)), st.integers(-2, 70)),
)
conditions: st.SearchStrategy[Condition] = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda parts: every(*parts)),
        st.lists(inner, max_size=3).map(lambda p: some(*p)),
    ),
    max_leaves=6,
)
values = st.fixed_dictionaries({"words": st.integers(10, 50), "lines": st.integers(2, 5)})


@given(st.lists(conditions, max_size=4), values)
def test_what_is_left_of_several_conditions_holds_exactly_where_they_do(
    parts: Sequence[Condition], counters: Mapping[str, int]
) -> None:
    held = [holds(part, counters) for part in parts]
    assert holds(every(*parts), counters) == all(held)
    assert holds(some(*parts), counters) == any(held)


@given(conditions, values)
def test_a_negated_condition_holds_exactly_where_the_condition_does_not(
    condition: Condition, counters: Mapping[str, int]
) -> None:
    assert holds(negate(condition), counters) != holds(condition, counters)


@given(conditions, values, st.integers(-2, 2), st.integers(-1, 1))
def test_a_shifted_condition_says_before_the_changes_what_holds_after_them(
    condition: Condition, counters: Mapping[str, int], words: int, lines: int
) -> None:
    after = {"words": counters["words"] + words, "lines": counters["lines"] + lines}
    assert holds(shift(condition, {WORDS: words, LINES: lines}), counters) == holds(condition, after)


def test_conditions_that_always_or_never_hold_are_known() -> None:
    assert less(None, 0) == ALWAYS
    assert less(WORDS, 64) == ALWAYS
    assert less(WORDS, 0) == NEVER
    assert at_least(WORDS, 64) == NEVER
    assert every(ALWAYS, NEVER) == NEVER
    assert some(NEVER, ALWAYS) == ALWAYS
    assert every(less(WORDS, 3), at_least(WORDS, 3)) == NEVER
    assert some(less(WORDS, 3), at_least(WORDS, 3)) == ALWAYS


def test_what_follows_from_the_rest_is_left_out() -> None:
    few, fewer, lines = less(WORDS, 9), less(WORDS, 3), less(LINES, 4)
    assert every(few, fewer) == fewer
    assert some(few, fewer) == few
    assert every(fewer, some(few, lines)) == fewer
    assert some(few, every(fewer, lines)) == few
    assert every(at_least(WORDS, 3), some(fewer, lines)) == every(at_least(WORDS, 3), lines)


def test_conjunctions_are_written_with_two_operands_each() -> None:
    written = write_condition(every(less(WORDS, 3), at_least(LINES, 1), less(LINES, 4)))
    assert written == "and(lt([0:6], 3), and(ge([6:9], 1), lt([6:9], 4)))"


def test_counters_beyond_64_bits_do_not_fit() -> None:
    layout = Layout()
    layout.add("words", 2**60)
    with pytest.raises(OverflowError):
        layout.add("lines", 15)
