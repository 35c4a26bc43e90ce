from typing import Any

import pytest

from service.evaluators.base import Check
from service.evaluators.text.bounds import Bounds
from service.evaluators.text.keywords import Keywords, OneOf
from tests.support.checks import in_english, only, refusals


@pytest.mark.parametrize(
    ("keyword", "text", "count"),
    [
        ("art", "party art ART", 2),
        ("art", "art art,art", 3),
        ("Paris", "_Paris_ **Paris** paris's", 3),
        ("C++", "C++ c++17 C+", 2),
        (".net", "asp.net .NET", 2),
        ("new york", "New\nYork, new  york; newyork", 2),
        ("straße", "STRASSE Straße", 2),
        ("café", "CAFE\u0301 cafe", 1),
        ("7", "7 77 H7", 1),
        ("😀", "ok😀😀", 2),
        ("a a", "a a a", 1),
        ("кот", "Кот, котик", 1),
        ("北京", "我在北京工作。北京市", 2),
        ("ไทย", "ภาษาไทย", 1),
        ("アート", "モダンアート展", 1),
        ("AI", "我在AI公司, AIX", 1),
        ("राम", "रामायण और राम, रामः", 1),
        ("भाषा", "हिन्दी भाषा", 1),
        ("don't", "I don\u2019t, you don't", 2),
        ("e\u2011mail", "an e-mail, an e\u2010mail", 2),
        ("❤\ufe0f", "❤\ufe0fok ❤\ufe0f", 2),
        ("\0", "not one", 0),
        ("\0", "a\0b", 1),
        ("x", "", 0),
    ],
)
def test_keywords_are_whole_words(keyword: str, text: str, count: int) -> None:
    exactly = Keywords(counts={keyword: Bounds(min=count, max=count)})
    assert only(exactly.check(text)).score == 1.0
    assert only(Keywords(counts={keyword: Bounds(min=count + 1)}).check(text)).score == count / (count + 1)


def test_case_matters_on_demand() -> None:
    assert only(Keywords(include=("Paris",), case_sensitive=True).check("paris")).score == 0.0
    assert only(Keywords(include=("Paris",), case_sensitive=True).check("In Paris.")).score == 1.0


def test_keywords_have_one_check_a_rule() -> None:
    keywords = Keywords(
        include=("Paris", "Rome", "Bonn"),
        exclude=("London", "Oslo"),
        counts={"cat": Bounds(max=2), "dog": Bounds(min=1)},
    )
    assert in_english(keywords.check("Paris, London: cat, cat, cat.")) == [
        Check("include", 1 - 2 / 3, "missing: Rome, Bonn", 'Use all of these words: "Paris", "Rome", "Bonn".'),
        Check("exclude", 0.5, "found: London", 'Use none of these words: "London", "Oslo".'),
        Check("counts", 2 / 3, '"cat" appears 3 times; at most 2 are allowed', 'Use "cat" at most 2 times.'),
        Check("counts", 0.0, '"dog" appears 0 times; at least 1 is needed', 'Use "dog" at least 1 time.'),
    ]
    none = Keywords(counts={"!": Bounds(max=0)}, letters={"q": Bounds(min=0, max=0)})
    assert in_english(none.check("Quick!")) == [
        Check("counts", 0.0, '"!" appears 1 time; none is allowed', 'Do not use "!".'),
        Check("letters", 0.0, 'the letter "q" appears 1 time; none is allowed', 'Do not use the letter "q".'),
    ]
    assert all(check.score == 1.0 for check in keywords.check("Paris, Rome, Bonn: a dog"))


@pytest.mark.parametrize(
    ("letter", "case_sensitive", "count"),
    [
        ("e", False, 4),
        ("e", True, 2),
        ("E", True, 2),
        ("é", False, 2),
        ("ß", True, 1),
        ("ß", False, 1),
        ("s", False, 3),
        ("\0", False, 0),
        ("!", False, 2),
        ("x", False, 0),
    ],
)
def test_letters_are_counted(letter: str, case_sensitive: bool, count: int) -> None:
    keywords = Keywords(letters={letter: Bounds(min=8)}, case_sensitive=case_sensitive)
    assert in_english(keywords.check("Ein Essen: CAFE\u0301, café, Straße!!")) == [
        Check(
            "letters",
            count / 8,
            f'the letter "{letter}" appears {count} time{"s" * (count != 1)}; at least 8 are needed',
            f'Use the letter "{letter}" at least 8 times.',
        )
    ]


def test_keywords_refuse_what_makes_no_sense() -> None:
    needed = "Value error, include, exclude, counts or letters is needed"
    assert refusals(type="keywords") == {("keywords",): needed}
    assert refusals(type="keywords", include=[], exclude=[], counts={}) == {("keywords",): needed}
    assert refusals(type="keywords", include=["a", " "]) == {
        ("keywords",): "Value error, a keyword or a letter is blank"
    }
    assert refusals(type="keywords", letters={" ": {"min": 1}}).keys() == {("keywords",)}
    assert refusals(type="keywords", letters={"ab": {"min": 1}, "c": {}}).keys() == {
        ("keywords", "letters", "ab", "[key]"),
        ("keywords", "letters", "c"),
    }
    assert refusals(type="keywords", include=["a", ""], counts={"b": {}, "c": {"max": -1}}).keys() == {
        ("keywords", "include", 1),
        ("keywords", "counts", "b"),
        ("keywords", "counts", "c", "max"),
    }
    assert refusals(type="keywords", exclude=["a"] * 101).keys() == {("keywords", "exclude")}
    assert refusals(type="keywords", include="Paris").keys() == {("keywords", "include")}


def test_a_final_sigma_is_a_sigma() -> None:
    assert only(Keywords(letters={"Σ": Bounds(min=2, max=2)}).check("σοφός")).score == 1.0


@pytest.mark.parametrize(
    ("fields", "text", "score"),
    [
        ({}, "Yes", 1.0),
        ({}, " yes.\n", 1.0),
        ({}, "NOT  SURE", 1.0),
        ({}, "Yes, indeed.", 0.0),
        ({}, "yes!", 1.0),
        ({}, "**Yes**", 1.0),
        ({}, '"yes".', 1.0),
        ({}, "“No!”", 1.0),
        ({}, "yes?", 0.0),
        ({}, "**", 0.0),
        ({}, "", 0.0),
        ({"case_sensitive": True}, "Yes.", 1.0),
        ({"case_sensitive": True}, "yes", 0.0),
        ({"anywhere": True}, "I say: yes!", 1.0),
        ({"anywhere": True}, "I am not\nsure.", 1.0),
        ({"anywhere": True}, "Yesterday.", 0.0),
        ({"anywhere": True, "case_sensitive": True}, "I say: yes!", 0.0),
    ],
)
def test_one_of_the_options(fields: dict[str, Any], text: str, score: float) -> None:
    assert only(OneOf(options=("Yes", "No.", "not sure"), **fields).check(text)).score == score


def test_one_of_says_what_the_options_are() -> None:
    options = ("yes", "no")
    assert in_english(OneOf(options=options).check("x" * 1000)) == [
        Check(
            "options",
            0.0,
            f'"{"x" * 30}…{"x" * 29}" is not one of the options',
            'Reply with one of these and nothing else: "yes", "no".',
        )
    ]
    assert in_english(OneOf(options=options, anywhere=True).check("maybe")) == [
        Check("options", 0.0, "it contains none of the options", 'Use one of these, word for word: "yes", "no".')
    ]


def test_one_of_needs_options() -> None:
    assert refusals(type="one_of", options=["yes"]).keys() == {("one_of", "options")}
    assert refusals(type="one_of", options=["x"] * 51).keys() == {("one_of", "options")}
    assert refusals(type="one_of", options=["yes", " "]).keys() == {("one_of",)}
    assert [only(OneOf(options=("!", "**")).check(text)).score for text in ("!", "**", "?", "")] == [1.0, 1.0, 0.0, 0.0]


def test_many_keywords_are_more_work() -> None:
    many = Keywords(include=tuple(f"word{number}" for number in range(100)))
    assert many.cost("a " * 500) > 2000 > 1100 > Keywords(include=("a",)).cost("a " * 500) >= 1000
    assert many.cost("") >= 500
