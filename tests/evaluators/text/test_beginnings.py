"""What verifiers know about a text from its beginning: that it fails however it goes on."""

from collections.abc import Sequence

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from service.evaluators.base import Verifier
from service.evaluators.text.bounds import Bounds
from service.evaluators.text.format import Format
from service.evaluators.text.keywords import Keywords, OneOf
from service.evaluators.text.language import Language
from service.evaluators.text.length import Length
from service.evaluators.text.number import Number
from service.evaluators.text.passages import EndsWith, StartsWith
from service.evaluators.text.regex import Regex
from service.evaluators.text.schema import FollowsSchema

BROKEN: Sequence[tuple[Verifier, str]] = [
    (Keywords(exclude=("sea",)), "The sea "),
    (Keywords(exclude=("海",)), "大海很"),
    (Keywords(counts={"salt": Bounds(max=1)}), "Salt, salt "),
    (Keywords(letters={"q": Bounds(max=0)}), "A quay "),
    (Format(kind="no_commas"), "Salt, "),
    (Format(kind="lowercase"), "salt and S"),
    (Format(kind="uppercase"), "SALT and "),
    (Format(kind="single_line"), "One\nTwo "),
    (Format(kind="quoted"), "The sea "),
    (Format(kind="json"), "Here is "),
    (Format(kind="json"), '{"a": x'),
    (Format(kind="json"), '{"a": 1} and '),
    (Format(kind="bullet_list", max=1), "- a\n- b\n"),
    (Format(kind="capital_words", max=1), "AB CD\n"),
    (Length(unit="words", max=2), "One two three "),
    (Length(unit="characters", max=5), "One two "),
    (Length(unit="paragraphs", max=1), "One.\n\nTwo.\n"),
    (Length(unit="lines", max=1), "One\nTwo\n"),
    (StartsWith(text="Dear"), "Hello, this is a letter"),
    (OneOf(options=("yes", "no")), "It is "),
    (Regex(pattern="(?i)sea", must_match=False), "The Sea "),
    (FollowsSchema(schema={"type": "object"}), "Sure: "),
]
OPEN: Sequence[tuple[Verifier, str]] = [
    (Keywords(include=("salt",)), "The sea "),
    (Keywords(exclude=("art",)), "A party "),
    (Format(kind="json"), '```json\n{"a": [1, '),
    (Format(kind="json"), '```json\n{"a": [1]}\n``'),
    (Format(kind="json"), '{"a": [1,'),
    (Format(kind="quoted"), "“The sea "),
    (Format(kind="bullet_list", max=1), "- a\n- b"),
    (Format(kind="capital_words", max=0), "AB"),
    (Length(unit="words", min=9), "One "),
    (Length(unit="sentences", max=1), "One. Two. "),
    (Length(unit="paragraphs", max=1), "```\na\n\nb\n"),
    (StartsWith(text="Dear"), "Dea"),
    (StartsWith(text="Dear"), '"Dear sea, this is '),
    (EndsWith(text="Bye"), "The sea "),
    (OneOf(options=("yes", "no")), "**Y"),
    (OneOf(options=("yes", "no"), anywhere=True), "It is "),
    (Regex(pattern="sea$", must_match=False), "The sea"),
    (Number(value=1), "It is 2 "),
]
RULES = [
    *(rule for rule, _ in (*BROKEN, *OPEN) if not isinstance(rule, FollowsSchema | Number)),
    *(Keywords(exclude=("a b",)), Keywords(counts={"가": Bounds(max=1)}), Format(kind="highlighted", max=1)),
    *(Format(kind="numbered_list", max=1), Format(kind="sections", max=1), Format(kind="placeholders", max=1)),
    *(Length(unit="paragraphs", max=1, separator="***"), StartsWith(text="“a b", case_sensitive=False)),
]


@pytest.mark.parametrize(("rule", "beginning"), BROKEN, ids=lambda value: repr(value)[:50])
def test_a_beginning_that_nothing_can_follow_is_broken(rule: Verifier, beginning: str) -> None:
    assert rule.is_broken(beginning)


@pytest.mark.parametrize(("rule", "beginning"), OPEN, ids=lambda value: repr(value)[:50])
def test_what_may_still_pass_is_open(rule: Verifier, beginning: str) -> None:
    assert not rule.is_broken(beginning)


def test_a_rule_that_needs_the_whole_text_is_never_broken_early() -> None:
    assert not Language(code="de").is_broken("The sea is wide and salt. " * 9)


PIECES = [
    *(
        "a ",
        "b ",
        "A",
        "AB ",
        "q",
        "sea ",
        "yes",
        "salt ",
        "Dear ",
        "海",
        "가는 ",
        "ı",
        "İ",
        "ß",
        "1",
        "3.14 ",
        "1,000 ",
    ),
    *(
        ". ",
        ", ",
        "! ",
        "\n",
        "\n\n",
        "\r\n",
        "---\n",
        "***\n",
        "- ",
        "* ",
        "*",
        "1. ",
        "> ",
        "```\n",
        "[x]",
        "Section 1\n",
    ),
    *('"', "“", "”", "{", "}", "[", "]", '"a": ', "```json\n", "\u0301", "\u200d", "-", "'t "),
]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=16).map("".join)
WORD_END = regex.compile(r"[\p{L}\p{N}\p{M}]++\Z")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: repr(rule)[:70])
@settings(max_examples=150, deadline=None)
@given(text=TEXTS, end=st.integers(0, 60))
def test_a_text_with_a_broken_beginning_fails(rule: Verifier, text: str, end: int) -> None:
    beginning = WORD_END.sub("", text[:end])
    if rule.is_broken(beginning):
        assert min(check.score for check in rule.check(text)) < 1.0
