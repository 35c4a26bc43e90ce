"""docs/reference/ifeval.md: every kind of verifiable instruction can be stated as the page says."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from service.evaluators.base import Check, EvaluatorSpec, Verifier
from service.evaluators.catalogue import AnyEvaluator

PAGE = Path(__file__).parents[2] / "docs/reference/ifeval.md"
WIRE: TypeAdapter[EvaluatorSpec] = TypeAdapter(AnyEvaluator)

KINDS_BY_GROUP: Mapping[str, int] = {
    "keywords": 4,
    "language": 1,
    "length_constraints": 4,
    "detectable_content": 2,
    "detectable_format": 6,
    "combination": 2,
    "change_case": 3,
    "startend": 2,
    "punctuation": 1,
}

TEXTS: Mapping[str, tuple[str, str]] = {
    "keywords:existence": ("The river runs under the bridge.", "The riverside is near the bridge."),
    "keywords:frequency": ("River after river.", "One river."),
    "keywords:forbidden_words": ("The riverside is near.", "The River is near."),
    "keywords:letter_frequency": ("Quite quiet.", "Quiet."),
    "language:response_language": ("Der Fluss ist sehr lang und breit.", "The river is very long and wide."),
    "length_constraints:number_paragraphs": ("One.\n\nStill one.\n***\nTwo.", "One.\n\nTwo."),
    "length_constraints:number_words": ("The river is very long.", "The river is very, very long."),
    "length_constraints:number_sentences": ("It is long. It is wide.", "It is long, e.g. in May."),
    "length_constraints:nth_paragraph_first_word": ("One.\n\nHowever, two.", "One.\n\nHowever, two.\n\nThree."),
    "detectable_content:postscript": ("Yours.\n\nP.P.S. I forgot.", "Yours.\n\nP.S. I forgot."),
    "detectable_content:number_placeholders": ("Dear [name], come to [place].", "Dear [name], come."),
    "detectable_format:number_bullet_lists": ("* one\n* two", "* one\n* two\n* three"),
    "detectable_format:title": ("<<The river>>\nIt is long.", "<The river>\nIt is long."),
    "detectable_format:constrained_response": ("Well. My answer is no.", "Well. No."),
    "detectable_format:number_highlighted_sections": ("*One* and **two**.", "* *One*\n* two"),
    "detectable_format:multiple_sections": ("SECTION 1\nOne.\nSECTION 2\nTwo.", "SECTION 1\nOne."),
    "detectable_format:json_format": ('```json\n{"river": "Volga"}\n```', 'Sure: {"river": "Volga"}'),
    "combination:repeat_prompt": ("name the longest river\nin Europe. The Volga.", "The Volga."),
    "combination:two_responses": ("The Volga.\n******\nIt is the Volga.", "The Volga.\n******\nThe Volga."),
    "change_case:english_capital": ("THE RIVER IS VERY LONG.", "The river is very long."),
    "change_case:english_lowercase": ("the river is very long.", "der fluss ist sehr lang."),
    "change_case:capital_word_frequency": ("A VERY LONG river.", "A very long river."),
    "startend:end_checker": ("The Volga. Any other\nquestions?", "Any other questions? No."),
    "startend:quotation": ('"The "Volga"."', 'The "Volga".'),
    "punctuation:no_comma": ("The Volga; it is long.", "The Volga, which is long."),
}


def stated() -> Mapping[str, Sequence[str]]:
    """The evaluators in JSON, by id, as the page's table has them."""
    rows = re.findall(r"^\| `([^`]+)` \|[^|]*\| (.*) \|$", PAGE.read_text(), re.MULTILINE)
    return {name: re.findall("`([^`]+)`", cell) for name, cell in rows}


def meets(name: str, text: str) -> bool:
    verifiers = [WIRE.validate_json(body) for body in stated()[name]]
    assert verifiers
    return all(check.score == 1.0 for verifier in verifiers for check in checks(verifier, text))


def checks(verifier: EvaluatorSpec, text: str) -> Sequence[Check]:
    assert isinstance(verifier, Verifier)
    return verifier.check(text)


def test_the_page_has_all_kinds() -> None:
    assert list(stated()) == list(TEXTS)
    assert Counter(name.partition(":")[0] for name in TEXTS) == KINDS_BY_GROUP


@pytest.mark.parametrize("name", TEXTS)
def test_a_kind_is_stated_as_the_page_says(name: str) -> None:
    assert [meets(name, text) for text in TEXTS[name]] == [True, False]


def test_one_text_meets_many() -> None:
    """Quotation marks around a text do not hinder the rules about its beginning and its end."""
    text = '"NAME THE LONGEST RIVER IN EUROPE. IT IS THE VOLGA. ANY OTHER QUESTIONS?"'
    for name in (
        "combination:repeat_prompt",
        "change_case:english_capital",
        "change_case:capital_word_frequency",
        "startend:end_checker",
        "startend:quotation",
        "punctuation:no_comma",
    ):
        assert meets(name, text)
