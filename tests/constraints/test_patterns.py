import pytest
import re2
from hypothesis import example, given
from hypothesis import strategies as st

from service.constraints.patterns import FOLDED, all_texts_with

PATTERNS = (
    "rain",
    "^rain",
    "rain$",
    "^rain$",
    "(?m)^rain$",
    "(?s)^r.*n$",
    "r.*n",
    "(?i)RAIN",
    r"\brain\b",
    r"\b- ",
    r" \b-?",
    r"(?i)\bk",
    "(^|\n)r",
    "r($|;)",
    "^$",
    "a|^b|c$",
    r"\s\S",
    "(?ims)^A.*b$",
    "(a|b){2,3}c?",
    r"\pL\d",
    "a*?b",
)
TEXTS = st.text(st.sampled_from("raink;-. \nRAbcB1é_"), max_size=12)


@pytest.mark.parametrize("pattern", PATTERNS)
@given(text=TEXTS)
@example(text="rain")
@example(text="a\nrain")
def test_all_texts_with_a_match_are_those_that_re2_finds_one_in(pattern: str, text: str) -> None:
    try:
        whole = all_texts_with(pattern)
    except ValueError:
        return
    assert (re2.fullmatch(whole, text) is not None) == (re2.search(pattern, text) is not None)


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        (r"a\bb", "an edge inside"),
        ("a$b", "an edge inside"),
        (r"\Ba", "an edge inside"),
        (r"\b.", "one is not certain"),
        ("[[:alpha:]]", "written in a way"),
        ("[]a]", "written in a way"),
        (r"(?m)\Aa", "written in a way"),
        (r"a(?i)b", "written in a way"),
        ("(^|a)" * 5, "too many alternatives"),
    ],
)
def test_a_pattern_that_cannot_be_written_without_edges_says_why(pattern: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        all_texts_with(pattern)


def test_letters_that_fold_to_ascii_are_the_two_that_texts_must_be_without() -> None:
    """Where case does not matter, RE2 takes them for letters, but an edge of a word is between them and letters."""
    assert [chr(code) for code in range(0x80, 0x10000) if chr(code).casefold() in "sk"] == list(FOLDED)
