import re

import pytest

from service.evaluators.text.patterns import (
    LEAST_PROGRAM,
    MAX_PROGRAM,
    MAX_SEARCH,
    SearchTooLarge,
    TooMuchToCompile,
    compile_linear,
    limit_compiling,
    spend,
)


@pytest.mark.parametrize(
    ("pattern", "found", "missed"),
    [
        ("^a+$", "aaa", "ab"),
        (r"\pL", "é", "1"),
        (r"^[\w-]{1,100}$", "a-b", "a b"),
        ("", "", None),
        ("(?s)^.{500}$", "é" * 500, "é"),
    ],
)
def test_a_pattern_is_searched_for(pattern: str, found: str, missed: str | None) -> None:
    compiled = compile_linear(pattern)
    assert compiled.search(found) is not None
    assert missed is None or compiled.search(missed) is None
    assert 0 < compiled.size <= MAX_PROGRAM


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("(a", "missing )"),
        ("(?=a)", "invalid perl operator"),
        (r"(a)\1", "invalid escape sequence"),
        (r"(?:\pL?){50}1", "too large; at most 10000 instructions"),
        ("(?:a?){1000}" * 5, "too large; at most 10000 instructions"),
        ("(?:a?){1000}" * 30 + "Z", "too large; at most 10000 instructions"),
        ("(?:(?:(?:a?){100}){100}){100}", "invalid repetition size"),
    ],
)
def test_a_pattern_that_cannot_run_in_linear_time_or_is_too_large_is_refused(pattern: str, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        compile_linear(pattern)


@pytest.mark.parametrize("letter", ["a", "é", "好"])
def test_a_search_is_refused_where_text_and_program_are_too_large_together(letter: str) -> None:
    pattern = compile_linear("(?:a?){1000}" * 4 + "Z")
    longest = MAX_SEARCH // pattern.size // len(letter.encode())
    assert pattern.search(letter * 1000) is None
    with pytest.raises(SearchTooLarge):
        pattern.search(letter * (longest + 1))


def test_the_cost_of_a_search_counts_bytes_and_instructions() -> None:
    pattern = compile_linear("^ab$")
    assert pattern.cost("a" * 99) == pattern.size * 100
    assert pattern.cost("é" * 99) == pattern.size * 199
    assert pattern.cost("\ud800") == pattern.size * 4


def test_what_a_request_compiles_is_bounded_as_a_whole() -> None:
    with limit_compiling(3 * LEAST_PROGRAM):
        for _ in range(3):
            compile_linear("a")
        with pytest.raises(TooMuchToCompile):
            compile_linear("a")
    compile_linear("a")


def test_a_pattern_that_is_refused_is_paid_for_too() -> None:
    with limit_compiling() as allowance:
        before = allowance.left
        with pytest.raises(ValueError, match="too large"):
            compile_linear("(?:a?){1000}" * 30)
        assert allowance.left == before - MAX_PROGRAM


def test_the_innermost_allowance_counts() -> None:
    with limit_compiling(1000) as outer, limit_compiling(10):
        spend(10)
        with pytest.raises(TooMuchToCompile):
            spend(1)
    assert outer.left == 1000
    spend(10**9)
