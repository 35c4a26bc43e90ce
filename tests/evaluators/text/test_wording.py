import time
from unicodedata import normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.evaluators.text.wording import case_foldings, folded, lowered, normalised, of_one_width, unquoted


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ＹＥＳ！", "YES!"),
        ("ｶﾞｷﾞｸﾞ｡", "ガギグ。"),
        ("ﾡﾢ", "ㄱㄲ"),
        ("（１）", "(1)"),
        ("︵﹒﹗︶", "(.!)"),
        ("cafe\u0301", "café"),
        ("ç\u0323", "c\u0323\u0327"),
        ("ﻛﺘﺎﺏ", "كتاب"),
        ("it’s", "it's"),
        ("e‑mail", "e-mail"),
        ("צה״ל", 'צה"ל'),
        ("가", "\u1100\u1161"),
    ],
)
def test_one_width_makes_equal(one: str, other: str) -> None:
    assert of_one_width(one) == of_one_width(other)
    assert normalised(one) == normalised(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("كِتَابٌ", "كتاب"),
        ("كتـــاب", "كتاب"),
        ("هٰذا", "هذا"),
        ("علي", "علی"),
        ("می‌روم", "میروم"),
        ("שָׁלוֹם", "שלום"),
        ("\ufb2a\ufb35", "שו"),
        ("ещё", "еще"),
        ("co\u00adoperate", "cooperate"),
        ("\ufeffHi\u200b\u2060", "Hi"),
        ("❤\ufe0f", "❤"),
        ("क्\u200dष", "क्ष"),
        ("葛\U000e0100", "葛"),
    ],
)
def test_only_what_is_read_counts(one: str, other: str) -> None:
    assert normalised(one) == normalised(other)
    assert of_one_width(one) != of_one_width(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("أحمد", "احمد"),
        ("té", "te"),
        ("й", "и"),
        ("が", "か"),
        ("हा", "ह"),
        ("ม้า", "มา"),
        ("①", "1"),
        ("١", "1"),
        ("台", "臺"),
        ("ㅤ", ""),
    ],
)
def test_what_readers_tell_apart_stays_apart(one: str, other: str) -> None:
    assert normalised(one) != normalised(other)


def test_case_is_folded_as_turkish_does_only_where_a_text_is_turkic() -> None:
    assert [*case_foldings(False, "Istanbul", "ISPARTA")] == [False]
    assert [*case_foldings(False, "Istanbul", "ısı")] == [False, True]
    assert [*case_foldings(True, "ısı")] == [False]
    assert folded("IŞIK İLE", turkic=True) == folded("ışık ile", turkic=True)
    assert folded("IS") == folded("is")


@given(st.text())
def test_normalising_twice_changes_nothing(text: str) -> None:
    assert normalised(normalised(text)) == normalised(text)
    assert of_one_width(of_one_width(text)) == of_one_width(text)


@given(st.text())
def test_the_ways_to_write_a_text_are_one(text: str) -> None:
    assert of_one_width(normalize("NFD", text)) == of_one_width(normalize("NFC", text)) == of_one_width(text)
    assert folded(normalize("NFD", text)) == folded(text)
    assert lowered(normalize("NFD", text)) == lowered(text)


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E)))
def test_full_width_is_no_other_wording(text: str) -> None:
    assert folded("".join(chr(ord(character) + 0xFEE0) for character in text)) == folded(text)


@pytest.mark.parametrize("pair", ['""', "“”", "„“", "«»", "»«", "「」", "『』", "〝〟", "”“", "❝❞"])
def test_quotation_marks_come_off_in_pairs(pair: str) -> None:
    assert unquoted(f"{pair[0]}Hi{pair[1]}") == "Hi"
    assert unquoted(f"{pair[0]}Hi") == f"{pair[0]}Hi"
    assert unquoted(pair) == pair


@pytest.mark.parametrize("piece", ["字", "كِ", "é", "\u0301\u0316", "\u0f73", "가", "\u200b"], ids=repr)
def test_a_megabyte_takes_no_time(piece: str) -> None:
    text = piece * (1_000_000 // len(piece))
    begun = time.thread_time()
    folded(text)
    assert time.thread_time() - begun < 5  # what is quadratic takes hours
