"""Each text rule in many languages: what a careful reader counts or finds, in the files of tables/."""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from service.evaluators.text.bounds import Bounds
from service.evaluators.text.format import Format, Kind
from service.evaluators.text.keywords import Keywords, OneOf
from service.evaluators.text.language import Language
from service.evaluators.text.passages import EndsWith, ParagraphStarts, StartsWith
from service.evaluators.text.sentences import count_sentences
from tests.support.checks import assert_last, only

TABLES = Path(__file__).parent / "tables"

Row = list[Any]


def read(name: str) -> dict[str, list[Any]]:
    return tomllib.loads((TABLES / f"{name}.toml").read_text())


def rows(name: str) -> Sequence[Any]:
    """One parameter for each text: its row of the table."""
    table = read(name).items()
    return [pytest.param(row, id=f"{language}-{at}") for language, listed in table for at, row in enumerate(listed)]


@pytest.mark.parametrize(
    "name",
    [
        *("bullet_list", "numbered_list", "sections", "highlighted", "placeholders", "capital_words"),
        *("keywords", "one_of", "passages", "paragraph_starts", "language", "numbers", "letters", "sentences"),
    ],
)
def test_a_table_has_five_texts_in_each_of_twelve_languages(name: str) -> None:
    table = read(name)
    assert len(table) >= 12
    assert min(map(len, table.values())) >= 5


def assert_count(kind: Kind, count: int, text: str, marker: str | None = None) -> None:
    check = only(Format(kind=kind, min=count, max=count, marker=marker).check(text))
    assert check.score == 1.0, check.message
    assert only(Format(kind=kind, min=count + 1, marker=marker).check(text)).score == count / (count + 1)


@pytest.mark.parametrize("row", rows("bullet_list"))
def test_bullets(row: Row) -> None:
    assert_count("bullet_list", *row)


@pytest.mark.parametrize("row", rows("numbered_list"))
def test_numbered_items(row: Row) -> None:
    assert_count("numbered_list", *row)


@pytest.mark.parametrize("row", rows("sections"))
def test_sections(row: Row) -> None:
    assert_count("sections", *row)


@pytest.mark.parametrize("row", rows("highlighted"))
def test_highlighted_parts(row: Row) -> None:
    assert_count("highlighted", *row)


@pytest.mark.parametrize("row", rows("placeholders"))
def test_placeholders(row: Row) -> None:
    assert_count("placeholders", *row)


@pytest.mark.parametrize("row", rows("capital_words"))
def test_capital_words(row: Row) -> None:
    assert_count("capital_words", *row)


@pytest.mark.parametrize("row", rows("sentences"))
def test_sentences(row: Row) -> None:
    count, text = row
    assert count_sentences(text) == count


@pytest.mark.parametrize("row", rows("keywords"))
def test_keywords(row: Row) -> None:
    keyword, text, count = row
    counted = Keywords(counts={keyword: Bounds(min=count, max=count)})
    assert only(counted.check(text)).score == 1.0, only(counted.check(text)).message
    assert only(Keywords(include=(keyword,)).check(text)).score == float(count > 0)
    assert only(Keywords(exclude=(keyword,)).check(text)).score == float(count == 0)


@pytest.mark.parametrize("row", rows("letters"))
def test_letters(row: Row) -> None:
    letter, text, count = row
    counted = Keywords(letters={letter: Bounds(min=count, max=count)})
    assert only(counted.check(text)).score == 1.0, only(counted.check(text)).message


@pytest.mark.parametrize("row", rows("one_of"))
def test_options(row: Row) -> None:
    options, text, met = row
    assert only(OneOf(options=tuple(options)).check(text)).score == float(met)


@pytest.mark.parametrize("row", rows("passages"))
def test_beginnings_and_ends(row: Row) -> None:
    end, passage, text, met = row
    kind = {"starts": StartsWith, "ends": EndsWith}[end]
    assert only(kind(text=passage).check(text)).score == float(met)


@pytest.mark.parametrize("row", rows("paragraph_starts"))
def test_beginnings_of_paragraphs(row: Row) -> None:
    words, paragraph, met = row
    rule = ParagraphStarts(paragraph=2, text=words)
    assert only(rule.check(f"A first paragraph.\n\n{paragraph}\n\nA last one.")).score == float(met)


@pytest.mark.parametrize("row", rows("numbers"))
def test_last_numbers(row: Row) -> None:
    value, text, *locale = row
    assert_last(text, None if value == "none" else value, *locale)


@pytest.mark.parametrize(("code", "text"), [(code, text) for code, texts in read("language").items() for text in texts])
def test_languages(code: str, text: str) -> None:
    assert [other for other in read("language") if only(Language(code=other).check(text)).score == 1.0] == [code]
