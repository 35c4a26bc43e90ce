"""languages.toml: texts in many languages, counted by hand."""

import time
import tomllib
import unicodedata
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.evaluators.text.languages import find_vocabulary
from service.evaluators.text.length import Length, Unit
from tests.support.checks import only

TABLES: Mapping[str, Any] = tomllib.loads(Path(__file__).with_name("languages.toml").read_text("utf-8"))
TEXTS: Sequence[tuple[str, Mapping[str, Any]]] = [
    (code, counted) for code, table in TABLES.items() for counted in table["texts"]
]
UNITS: Sequence[Unit] = ["words", "sentences", "paragraphs", "lines"]


def count(unit: Unit, text: str) -> int:
    return round(only(Length(unit=unit, min=1_000_000).check(text)).score * 1_000_000)


@pytest.mark.parametrize(("code", "counted"), TEXTS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_text_is_as_long_as_a_reader_of_its_language_counts(code: str, counted: Mapping[str, Any]) -> None:
    text = counted["text"]
    expected = {unit: counted[unit] for unit in UNITS if unit in counted}
    assert {unit: count(unit, text) for unit in expected} == expected


@pytest.mark.parametrize(("code", "counted"), TEXTS, ids=lambda value: value if isinstance(value, str) else "")
@pytest.mark.parametrize("unit", UNITS)
def test_the_way_it_is_stored_does_not_matter(unit: Unit, code: str, counted: Mapping[str, Any]) -> None:
    text = counted["text"]
    same = [
        unicodedata.normalize("NFC", text),
        unicodedata.normalize("NFD", text),
        text.replace("\n", "\r\n"),
        f"\n\n {text} \u3000\n",
        "\n".join(f"{line}  " for line in text.split("\n")),
    ]
    assert {count(unit, variant) for variant in same} == {count(unit, text)}


@pytest.mark.parametrize("code", TABLES)
@pytest.mark.parametrize("unit", UNITS)
def test_paragraphs_add_up(unit: Unit, code: str) -> None:
    texts = [counted["text"] for counted in TABLES[code]["texts"]]
    assert count(unit, "\n\n".join(texts)) == sum(count(unit, text) for text in texts)


SCRIPTS = st.text(
    alphabet=st.sampled_from("aÉß0 9５\n.!?…,。、！「」“”《》()-—ключéΩ;한글가字あア゙ｶﾞกาမ်កཀ་།हि।ىے؟٣אבሰ።։")
)


@given(text=SCRIPTS | st.text())
def test_words_and_lines_of_any_text_are_the_same_however_it_is_stored(text: str) -> None:
    composed, decomposed = unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text)
    assert count("words", composed) == count("words", decomposed)
    assert count("paragraphs", composed) == count("paragraphs", decomposed)
    assert count("lines", composed) == count("lines", decomposed)


@given(text=SCRIPTS)
def test_sentences_of_any_text_are_the_same_however_it_is_stored(text: str) -> None:
    same = [
        unicodedata.normalize("NFC", text),
        unicodedata.normalize("NFD", text),
        text.replace("\n", "\r\n"),
        text.replace("\n", " \n"),
        f" \n{text}\u3000 ",
    ]
    assert {count("sentences", variant) for variant in same} == {count("sentences", text)}


@pytest.mark.parametrize("unit", ["words", "paragraphs", "lines"])
@given(first=SCRIPTS, second=SCRIPTS)
def test_units_of_any_texts_add_up(unit: Unit, first: str, second: str) -> None:
    assert count(unit, f"{first}\n\n{second}") == count(unit, first) + count(unit, second)


@given(text=SCRIPTS)
def test_units_are_nested(text: str) -> None:
    assert count("paragraphs", text) <= count("lines", text)
    assert count("words", text) <= len(text)
    assert (count("sentences", text) > 0) == (count("words", text) > 0)


def test_the_table_is_large_enough() -> None:
    assert sum(len(table["texts"]) >= 5 for table in TABLES.values()) >= 12


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("Ich gehe mit der Frau und dem Kind in das Haus.", "Frl"),
        ("She is in the house with his brother and they know it.", "Messrs"),
        ("Elle est dans la maison avec son frère et ils ne le savent pas.", "Mlle"),
        ("Он был в доме, и она не знала, что это так.", "проф"),
    ],
)
def test_common_words_tell_the_language(text: str, title: str) -> None:
    found = find_vocabulary(text)
    assert title in found.titles
    assert len(found.titles) < 100


def test_a_text_that_is_too_short_to_tell_may_be_in_any_language() -> None:
    assert {"Frl", "Messrs", "Mlle", "проф"} <= find_vocabulary("Hello").titles


def test_texts_are_counted_side_by_side_in_threads() -> None:
    texts = [counted["text"] * 20 for _, counted in TEXTS]
    alone = [[count(unit, text) for unit in UNITS] for text in texts]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda text: [count(unit, text) for unit in UNITS], texts * 4))
    assert together == alone * 4


@pytest.mark.parametrize("unit", ["words", "sentences", "paragraphs", "lines"])
@pytest.mark.parametrize(
    "piece",
    [
        "字。",
        "「",
        "《字",
        "“a!” ",
        "A. ",
        "Mr. X. ",
        "ก",
        "ກ",
        "1\u202f",
        "α;",
        ".\n- ",
        "a.[1] ",
        "!😀",
        "།་",
        "(",
        "\u200b\n",
    ],
    ids=repr,
)
def test_a_long_text_in_any_script_takes_no_time(unit: Unit, piece: str) -> None:
    text = piece * (300_000 // len(piece)) + "x"
    begun = time.thread_time()
    count(unit, text)
    assert time.thread_time() - begun < 10  # what is quadratic takes half an hour
