import json
import time
from collections.abc import Sequence
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from service.evaluators.base import Check
from service.evaluators.text.format import Format, Kind

WIRE = TypeAdapter(Format)


def only(checks: Sequence[Check]) -> Check:
    (check,) = checks
    return check


BULLETS = "Here you are:\r\n- one\r\n  * two\r\n• three\r\n+ four\r\n-not\r\n**nor this**\r\n---"


@pytest.mark.parametrize(
    ("fields", "text", "score"),
    [
        ({"kind": "json"}, '{"a": [1, null]}', 1.0),
        ({"kind": "json"}, " 42 ", 1.0),
        ({"kind": "json"}, '```json\n{"a": "```"}\n```', 1.0),
        ({"kind": "json"}, "```\r\n[]\r\n```", 1.0),
        ({"kind": "json"}, "Sure:\n```json\n[]\n```", 0.0),
        ({"kind": "json"}, "```json\n[]", 0.0),
        ({"kind": "json"}, "```python\n[]\n```", 0.0),
        ({"kind": "json"}, "{'a': 1}", 0.0),
        ({"kind": "json"}, "NaN", 0.0),
        ({"kind": "json"}, "", 0.0),
        ({"kind": "bullet_list"}, BULLETS, 1.0),
        ({"kind": "bullet_list", "min": 4, "max": 4}, BULLETS, 1.0),
        ({"kind": "bullet_list", "min": 5}, BULLETS, 0.8),
        ({"kind": "bullet_list", "max": 2}, BULLETS, 0.5),
        ({"kind": "bullet_list", "marker": "*", "max": 1}, BULLETS, 1.0),
        ({"kind": "bullet_list", "marker": "=>"}, "=> a", 1.0),
        ({"kind": "bullet_list"}, "none", 0.0),
        ({"kind": "bullet_list", "min": 1, "max": 1}, "- - -\n- a\n* * *\n***\n - -  -\t", 1.0),
        ({"kind": "bullet_list", "min": 1, "max": 1, "marker": "-"}, "- - -\n- a", 1.0),
        ({"kind": "bullet_list", "min": 3, "max": 3}, "- -\n- +\n- - - a", 1.0),
        ({"kind": "bullet_list", "min": 5, "max": 5}, "\u2013 a\n◦ b\n  ‣ c\n▪ d\n● e\n\u20133 degrees", 1.0),
        ({"kind": "numbered_list", "min": 3, "max": 3}, "1. a\n2) b\n  10. c\n3.5 is no item\n4.", 1.0),
        ({"kind": "numbered_list", "min": 2}, "1. a", 0.5),
        ({"kind": "numbered_list", "min": 6, "max": 6}, "**1.** a\n(2) b\n**3. c**\n4\\. d\n(10.) e\n12) f", 1.0),
        ({"kind": "numbered_list"}, "2024. was good", 0.0),
        ({"kind": "title"}, "<<A poem>>\nText", 1.0),
        ({"kind": "title"}, "<< >>", 0.0),
        ({"kind": "title"}, "<<two\nlines>>", 0.0),
        ({"kind": "title"}, "<A poem>", 0.0),
        ({"kind": "single_line"}, "\n one line \r\n", 1.0),
        ({"kind": "single_line"}, "a\nb\n\nc\nd", 0.25),
        ({"kind": "single_line"}, "", 0.0),
        ({"kind": "no_commas"}, "a; b", 1.0),
        ({"kind": "no_commas"}, "a, b", 0.5),
        ({"kind": "no_commas"}, "a, b、c\uff0cd", 0.25),
        ({"kind": "no_commas"}, " ", 0.0),
        ({"kind": "lowercase"}, "", 0.0),
        ({"kind": "uppercase"}, "\n", 0.0),
        ({"kind": "uppercase"}, "STRAßE", 1.0),
        ({"kind": "lowercase"}, "İ", 0.0),
        ({"kind": "lowercase"}, "all small, ß and 42 😀", 1.0),
        ({"kind": "lowercase"}, "aBcd", 0.75),
        ({"kind": "lowercase"}, "42!", 1.0),
        ({"kind": "uppercase"}, "ALL CAPS, É AND 42", 1.0),
        ({"kind": "uppercase"}, "ABcd", 0.5),
        ({"kind": "uppercase"}, "你好", 1.0),
        ({"kind": "quoted"}, ' "Hi, "Ann"." ', 1.0),
        ({"kind": "quoted"}, "“Hi”", 1.0),
        ({"kind": "quoted"}, "„Hallo“", 1.0),
        ({"kind": "quoted"}, "«\u00a0Allô\u00a0»", 1.0),
        ({"kind": "quoted"}, "「はい」", 1.0),
        ({"kind": "quoted"}, "“Hi«", 0.0),
        ({"kind": "quoted"}, '"Hi', 0.0),
        ({"kind": "quoted"}, '""', 0.0),
        ({"kind": "quoted"}, '"', 0.0),
        ({"kind": "quoted"}, "", 0.0),
        ({"kind": "sections", "min": 3, "max": 3}, "Section 1\na\n## Section 2: b\n**Section 3**", 1.0),
        ({"kind": "sections", "min": 2}, "Section 1\nIn Section 2 we see", 0.5),
        ({"kind": "sections", "marker": "PART"}, "PART 1", 1.0),
        ({"kind": "sections", "marker": "PART"}, "Part 1", 0.0),
        ({"kind": "sections", "marker": "Teil (A)"}, "Teil (A) 1", 1.0),
        ({"kind": "sections"}, "Sectional 1", 0.0),
        ({"kind": "highlighted", "min": 3, "max": 3}, "*one*, **two words** and ***three***", 1.0),
        ({"kind": "highlighted", "min": 2}, "* a bullet\n* another with *one* part\n2 * 3 * 4", 0.5),
        ({"kind": "highlighted"}, "** ** *over\ntwo lines* * no*", 0.0),
        ({"kind": "placeholders", "min": 2, "max": 2}, "Dear [name], see [the date] and [a link](x) or [ ].", 1.0),
        ({"kind": "placeholders", "min": 4}, "[[name]]", 0.25),
        ({"kind": "placeholders"}, "[over\ntwo lines]", 0.0),
        ({"kind": "capital_words", "min": 3, "max": 3}, "I saw the **NASA** logo-ON it, OK? (A1 no.)", 0.75),
        ({"kind": "capital_words", "max": 2}, "none 42", 1.0),
        ({"kind": "capital_words", "max": 1}, "ONE TWO", 0.5),
        ({"kind": "capital_words"}, "Only One's", 0.0),
        ({"kind": "postscript"}, "Dear Ann.\r\n\r\n**p.s.** More", 1.0),
        ({"kind": "postscript"}, "Dear Ann.\nP.S.\nMore", 1.0),
        ({"kind": "postscript"}, "Dear Ann. P.S. More", 0.0),
        ({"kind": "postscript"}, "P.S. More\n\nDear Ann.", 0.0),
        ({"kind": "postscript"}, "**P.S.** More\n\nDear Ann.\nP.S. Yours", 1.0),
        ({"kind": "postscript"}, "Dear Ann.\nP.S. …", 0.0),
        ({"kind": "postscript", "marker": "P.P.S"}, "P.S. a\nP.P.S. b", 1.0),
        ({"kind": "postscript", "marker": "P.P.S"}, "P.S. a\nPxPxS b", 0.0),
        ({"kind": "no_commas"}, "a、b，c،d፣e՝f︐g﹐h", 1 / 8),
        ({"kind": "no_commas"}, "3,5 ‚zitiert‘ ʻokina；و؛", 0.5),
        ({"kind": "lowercase"}, "ǆ ქართული ß ı i̇ ﬁ 中文", 1.0),
        ({"kind": "lowercase"}, "ǅaaa", 0.75),
        ({"kind": "lowercase"}, "ẞa", 0.5),
        ({"kind": "uppercase"}, "ǅA", 0.5),
        ({"kind": "uppercase"}, "ǄQ GROẞ İI ქართული ΕΛΛΆΔΑ العربية ไทย", 1.0),
        ({"kind": "uppercase"}, "Iı", 0.5),
        ({"kind": "single_line"}, "一\u2028二", 0.5),
        ({"kind": "single_line"}, "一\x85\x85二", 0.5),
        ({"kind": "quoted"}, "『はい』", 1.0),
        ({"kind": "quoted"}, "＂Hi＂", 1.0),
        ({"kind": "quoted"}, "”Hej”", 1.0),
        ({"kind": "quoted"}, "»Hallo«", 1.0),
        ({"kind": "quoted"}, "״שלום״", 1.0),
        ({"kind": "quoted"}, "〝はい〟", 1.0),
        ({"kind": "quoted"}, "《书名》", 0.0),
        ({"kind": "quoted"}, "‘Hi’", 0.0),
        ({"kind": "title"}, "＜＜春天＞＞\n正文", 1.0),
        ({"kind": "title"}, "《春天》\n正文", 0.0),
        ({"kind": "two_responses"}, "一。\n＊＊＊＊＊＊\n二。", 1.0),
        ({"kind": "two_responses"}, "ＹＥＳ\n******\nyes", 0.5),
        ({"kind": "postscript", "marker": "附："}, "亲爱的安：\n你好。\n附：别忘了。", 1.0),
        ({"kind": "postscript", "marker": "又及"}, "你好。\n　又及：别忘了。", 1.0),
        ({"kind": "postscript"}, "你好。\n附：别忘了。", 0.0),
        ({"kind": "bullet_list", "min": 2, "max": 2}, "\u200f- تفاح\n\ufeff- خبز", 1.0),
        ({"kind": "numbered_list", "min": 2, "max": 2}, "\u200f١. تفاح\n\u20672.\u2069 خبز", 1.0),
        ({"kind": "sections", "marker": "بخش‌ها", "max": 1}, "\u200fبخش‌ها ۱", 1.0),
        ({"kind": "quoted"}, "\u200f«نعم»\u200f", 1.0),
        ({"kind": "json"}, "tr\u200bue", 0.0),
        # As in the paper's code:
        ({"kind": "placeholders", "min": 2, "max": 2}, "- [x] done [1]", 1.0),
        ({"kind": "highlighted"}, "2*3*4", 1.0),
        ({"kind": "title"}, "x << 2 >> y", 1.0),
        ({"kind": "quoted"}, '"a" and "b"', 1.0),
        ({"kind": "sections"}, "section 1", 0.0),
        ({"kind": "two_responses"}, "One.\n******\nTwo.", 1.0),
        ({"kind": "two_responses"}, "******\nOne.\n********\n**Two.**\n******", 1.0),
        ({"kind": "two_responses"}, "One.\n******\n ONE. ", 0.5),
        ({"kind": "two_responses"}, "a ****** b ****** c ****** d", 0.5),
        ({"kind": "two_responses"}, "One.\n*****\nTwo.", 0.5),
        ({"kind": "two_responses"}, "******", 0.0),
    ],
)
def test_forms(fields: dict[str, Any], text: str, score: float) -> None:
    check = only(Format(**fields).check(text))
    assert check.rule == fields["kind"]
    assert check.score == score


@pytest.mark.parametrize(
    ("fields", "text", "message", "instruction"),
    [
        (
            {"kind": "bullet_list", "min": 2, "max": 3, "marker": "*"},
            "* a",
            "1 item; 2 to 3 are needed",
            'Write a bullet list of 2 to 3 items, each on a line of its own that begins with "* ".',
        ),
        (
            {"kind": "numbered_list", "max": 1},
            "1. a\n2. b",
            "2 items; exactly 1 is allowed",
            'Write a numbered list of exactly 1 item, each on a line of its own: "1. ", "2. " and so on.',
        ),
        (
            {"kind": "sections", "marker": "{}"},
            "",
            "0 sections; at least 1 is needed",
            'Write at least 1 section, each under a heading on a line of its own: "{} 1", "{} 2" and so on.',
        ),
        (
            {"kind": "highlighted", "min": 2},
            "*a*",
            "1 part; at least 2 are needed",
            "Highlight at least 2 parts with asterisks, such as *this one*.",
        ),
        (
            {"kind": "placeholders"},
            "",
            "0 placeholders; at least 1 is needed",
            "Use at least 1 placeholder in square brackets, such as [address].",
        ),
        (
            {"kind": "capital_words", "max": 1},
            "A B",
            "2 capital words; at most 1 is allowed",
            "Use at most 1 capital word, such as THIS.",
        ),
        (
            {"kind": "capital_words", "max": 0},
            "I am",
            "1 capital word; none is allowed",
            "Use no words in capital letters.",
        ),
        (
            {"kind": "bullet_list", "min": 0, "max": 0},
            "- a\n- b",
            "2 items; none is allowed",
            "Use no bullet points.",
        ),
        ({"kind": "uppercase"}, "", "it is empty", "Write in CAPITAL LETTERS only."),
        (
            {"kind": "postscript", "marker": "NB:"},
            "",
            'no line after the text that begins with "NB:" and goes on',
            'Add a postscript at the end that begins with "NB:".',
        ),
        (
            {"kind": "two_responses"},
            "a",
            "1 different response; exactly 2 are needed",
            'Give two different responses, with a line of six asterisks "******" between them.',
        ),
        (
            {"kind": "single_line"},
            "a\nb",
            "2 lines; exactly 1 is allowed",
            "Write everything on one line.",
        ),
        ({"kind": "no_commas"}, "a, b", "1 comma; none is allowed", "Do not use any commas."),
        (
            {"kind": "lowercase"},
            "aBC",
            "2 letters of 3 in the wrong case",
            "Write in lower case only: no capital letters.",
        ),
        (
            {"kind": "json"},
            "[1",
            "not JSON: EOF while parsing a list at line 1 column 2",
            "Reply with JSON only, without any other text.",
        ),
    ],
)
def test_a_fault_says_what_is_wrong_and_what_to_do(
    fields: dict[str, Any], text: str, message: str, instruction: str
) -> None:
    check = only(Format(**fields).check(text))
    assert (check.message, check.instruction) == (message, instruction)


@pytest.mark.parametrize(
    ("fields", "location", "message"),
    [
        ({"kind": "json", "min": 1}, (), "Value error, json does not take min or max"),
        ({"kind": "postscript", "min": 1}, (), "Value error, postscript does not take min or max"),
        ({"kind": "highlighted", "marker": "_"}, (), "Value error, highlighted does not take a marker"),
        ({"kind": "title", "max": 0}, (), "Value error, title does not take min or max"),
        ({"kind": "numbered_list", "marker": "1."}, (), "Value error, numbered_list does not take a marker"),
        ({"kind": "bullet_list", "marker": " "}, (), "Value error, marker is blank"),
        ({"kind": "bullet_list", "marker": "\u200b"}, (), "Value error, marker is blank"),
        ({"kind": "sections", "min": 3, "max": 2}, (), "Value error, min is greater than max"),
        ({"kind": "bullet_list", "max": 0}, (), "Value error, min is greater than max"),
        ({"kind": "bullet_list", "marker": ""}, ("marker",), "String should have at least 1 character"),
        ({"kind": "bullet_list", "min": -1}, ("min",), "Input should be greater than or equal to 0"),
        ({}, ("kind",), "Field required"),
    ],
)
def test_fields_that_make_no_sense_are_refused(fields: dict[str, Any], location: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        WIRE.validate_json(json.dumps({"type": "format", **fields}))
    assert [(error["loc"], error["msg"]) for error in caught.value.errors()] == [(location, message)]


@pytest.mark.parametrize("kind", get_args(Kind))
def test_every_kind_is_on_the_wire(kind: Kind) -> None:
    assert WIRE.validate_json(json.dumps({"type": "format", "kind": kind})) == Format(kind=kind)


@pytest.mark.parametrize("kind", get_args(Kind))
@settings(deadline=None)
@given(text=st.text() | st.text(alphabet='<>"`jsonA,a-*1.\r\n {}[]SP'))
def test_a_form_judges_any_text(kind: Kind, text: str) -> None:
    check = only(Format(kind=kind).check(text))
    assert 0.0 <= check.score <= 1.0
    assert check.message or check.score == 1.0
    assert check.instruction


@pytest.mark.parametrize("kind", get_args(Kind))
@pytest.mark.parametrize(
    "piece",
    [
        *("<<", "<<a", "[", "- ", "1. a\n", "\n \n", "```\n", "*", "*a ", "[a", "P.S. ", "P.S.\n", "- -  ", "- - -x\n"),
        *("\u3000", "・", "第1", "①", "一", "ＣＰＵ、", "【", "＊", "1\ufe0f\u20e3", "> ", "**1", "Section "),
    ],
    ids=repr,
)
def test_a_megabyte_takes_no_time(kind: Kind, piece: str) -> None:
    text = "x" + piece * (1_000_000 // len(piece)) + "x"
    begun = time.thread_time()
    for each in (text, text[1:]):
        Format(kind=kind).check(each)
    assert time.thread_time() - begun < 5
