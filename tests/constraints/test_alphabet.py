"""The sets of characters, held against the verifiers that count and compare the same texts."""

import sys
from functools import cache

import pytest
import regex

from service.constraints.alphabet import LETTERS, LINE, MARKS, SCRIPTS, WITH_CAPITALS, WITH_SMALLS, members, only
from service.evaluators.text.counting import count_words
from service.evaluators.text.format import Format
from service.evaluators.text.phrases import tokens
from service.evaluators.text.wording import fold

EVERY = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
CASED = [each for each in EVERY if each.lower() != each.upper()]


@cache
def characters(of: str) -> list[str]:
    pattern = regex.compile(f"(?V1){of}")
    return [each for each in EVERY if pattern.match(each)]


def test_a_letter_makes_one_word_by_itself_and_with_others() -> None:
    assert [each for each in characters(LETTERS) if count_words(each) != 1 or count_words(f"a{each}a") != 1] == []


def test_vowel_signs_divide_no_word() -> None:
    assert [each for each in characters(MARKS) if count_words(f"क{each}क") != 1] == []


def test_folding_makes_one_letter_of_one() -> None:
    odd = [each for each in characters(LETTERS) if len(fold(each)) != 1 or fold(f"a{each}") != f"a{fold(each)}"]
    assert odd == ["İ"]  # spelled out where words are excluded


def test_letters_of_one_script_are_one_word_to_compare() -> None:
    for script in SCRIPTS:
        letters = [each for each in characters(LETTERS) if regex.match(f"(?V1){script}", each)]
        assert letters
        assert [each for each in letters if len(list(tokens(letters[0] + each))) != 1 and each != "İ"] == []


@pytest.mark.parametrize(("kind", "removed"), [("lowercase", WITH_CAPITALS), ("uppercase", WITH_SMALLS)])
def test_without_the_other_case_every_character_passes(kind: str, removed: str) -> None:
    verifier = Format(kind=kind)  # type: ignore[arg-type]
    allowed = regex.compile(f"(?V1){only(LINE, removed)}")
    assert [each for each in CASED if allowed.match(each) and verifier.check(each)[0].score < 1] == []


def test_single_characters_are_removed() -> None:
    assert {",", "]", "^"}.isdisjoint(characters(only(LINE, members(",]^"))))
