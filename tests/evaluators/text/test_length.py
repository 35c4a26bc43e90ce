from typing import Any

import pytest

from service.evaluators.base import Check
from service.evaluators.text.length import Length, Unit
from service.evaluators.text.words import count_lines, paragraphs
from tests.support.checks import only, refusals


@pytest.mark.parametrize(
    ("unit", "text", "count"),
    [
        ("characters", "  añb\r\nc ", 5),
        ("characters", "😀", 1),
        ("paragraphs", "a\nb\n\n \n\nc\r\n\r\nd", 3),
        ("paragraphs", "", 0),
        ("lines", "a\n\nb\r\n\r\nc", 3),
        ("sentences", "A. B. C d.", 1),
        ("words", "a b", 2),
    ],
)
def test_units(unit: Unit, text: str, count: int) -> None:
    assert only(Length(unit=unit, min=count, max=count).check(text)).score == 1.0
    assert only(Length(unit=unit, min=count + 1).check(text)).score == count / (count + 1)


@pytest.mark.parametrize(
    ("bounds", "words", "score", "message", "instruction"),
    [
        ({"max": 40}, 60, 40 / 60, "60 words; at most 40 are allowed", "Use at most 40 words."),
        ({"min": 50}, 40, 0.8, "40 words; at least 50 are needed", "Use at least 50 words."),
        ({"min": 2, "max": 4}, 1, 0.5, "1 word; 2 to 4 are needed", "Use 2 to 4 words."),
        ({"min": 2, "max": 4}, 5, 0.8, "5 words; 2 to 4 are allowed", "Use 2 to 4 words."),
        ({"min": 1, "max": 1}, 2, 0.5, "2 words; exactly 1 is allowed", "Use exactly 1 word."),
        ({"max": 11}, 22, 0.5, "22 words; at most 11 are allowed", "Use at most 11 words."),
        ({"max": 0}, 3, 0.0, "3 words; none is allowed", "Use no words."),
        ({"min": 3}, 0, 0.0, "0 words; at least 3 are needed", "Use at least 3 words."),
    ],
)
def test_length_says_how_close_and_what_to_do(
    bounds: dict[str, Any], words: int, score: float, message: str, instruction: str
) -> None:
    check = only(Length(unit="words", **bounds).check("w " * words))
    assert (check.rule, check.score, check.message, check.instruction) == ("words", score, message, instruction)


@pytest.mark.parametrize(
    ("length", "instruction"),
    [
        (Length(unit="words", max=30), "篇幅：不超过 30 字（外文和数字每个词算一字，标点不算）。"),
        (Length(unit="characters", min=2, max=5), "篇幅：2 到 5 个字符（标点和空格也算）。"),
        (Length(unit="sentences", min=3, max=3), "篇幅：正好 3 句话。"),
        (Length(unit="paragraphs", min=2), "篇幅：至少 2 段。"),
        (Length(unit="lines", max=8), "篇幅：不超过 8 行（空行不算）。"),
    ],
)
def test_length_speaks_chinese(length: Length, instruction: str) -> None:
    assert only(length.check("")).instruction_in("zh") == instruction


@pytest.mark.parametrize("count", [2, 3, 4])
def test_both_bounds_are_allowed(count: int) -> None:
    assert only(Length(unit="words", min=2, max=4).check("w " * count)).score == 1.0


def test_length_refuses_what_makes_no_sense() -> None:
    assert refusals(type="length", unit="words") == {("length",): "Value error, min or max is needed"}
    assert refusals(type="length", unit="words", min=3, max=2) == {("length",): "Value error, min is greater than max"}
    assert refusals(type="length", unit="pages", min=-1, max="3").keys() == {
        ("length", "unit"),
        ("length", "min"),
        ("length", "max"),
    }
    assert refusals(type="length", unit="words", max=3.5, exactly=3).keys() == {
        ("length", "max"),
        ("length", "exactly"),
    }


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("***", 0),
        ("one\n\nstill one", 1),
        ("one\r\n ***  \r\ntwo\n***", 2),
        ("***\none\n***\n\n***\ntwo", 2),
        ("***bold***\ntext *** text\n****", 1),
    ],
)
def test_a_separator_is_a_line_of_its_own(text: str, count: int) -> None:
    length = Length(unit="paragraphs", separator=" ***", min=3)
    assert length.check(text) == [
        Check(
            "paragraphs",
            count / 3,
            f"{count} paragraph{'s' * (count != 1)}; at least 3 are needed",
            'Use at least 3 paragraphs, with the line "***" between them.',
            {"zh": "篇幅：至少 3 段，段与段之间单独用一行“***”隔开。"},
        )
    ]


def test_only_paragraphs_have_a_separator() -> None:
    length = {"type": "length", "max": 1}
    assert refusals(**length, unit="words", separator="*").keys() == {("length",)}
    assert refusals(**length, unit="paragraphs", separator=" ").keys() == {("length",)}
    assert refusals(**length, unit="paragraphs", separator="*\n*").keys() == {("length",)}
    assert refusals(**length, unit="paragraphs", separator="").keys() == {("length", "separator")}


@pytest.mark.parametrize("rule", ["---", "***", "___", "- - -", " * * *", "———", "＊＊＊", "※ ※ ※", "──────", "==="])
def test_a_horizontal_rule_is_no_paragraph(rule: str) -> None:
    assert paragraphs(f"First.\n\n{rule}\n\nSecond.") == ["First.", "Second."]
    assert paragraphs(f"{rule}\nFirst.\n{rule}") == ["First."]
    assert paragraphs(f"First.\n***\n{rule}\n***\nSecond.", "***") == ["First.", "Second."]


@pytest.mark.parametrize("line", ["--", "……", "...", "!!!", "- * -", "--- a", "?", "…"])
def test_a_line_of_other_signs_is_part_of_a_paragraph(line: str) -> None:
    assert paragraphs(f"First.\n\n{line}\n\nSecond.") == ["First.", line, "Second."]


@pytest.mark.parametrize("blank", ["", " \t", "\u3000\u3000", "\u200b", "\ufeff", "\u2060\xa0", "\u3164", "\u2800"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\x85", "\u2028", "\u2029"])
def test_a_line_without_anything_to_see_is_blank(blank: str, end: str) -> None:
    text = end.join(["First.", blank, "Second.", "Still.", blank, blank])
    assert paragraphs(text) == ["First.", "Second.\nStill."]
    assert count_lines(text) == 3


def test_paragraphs_keep_their_lines() -> None:
    assert paragraphs("a\nb\n \n\nc") == ["a\nb", "c"]
    assert paragraphs("a\n\nb\n--\nc", "--") == ["a\n\nb", "c"]
