import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.evaluators.base import Check
from service.evaluators.text.number import Number
from service.evaluators.text.numerals import find_last_numeral
from tests.evaluators.text.checks import only, refusals

LANGUAGES: dict[str, list[dict[str, Any]]] = tomllib.loads(Path(__file__).with_name("numbers.toml").read_text())


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("first 7, then 42.", 42),
        ("It costs $1,234.50!", 1234.5),
        ("a loss of -$5", -5),
        ("x=-3", -3),
        ("\u22123.5 degrees", -3.5),
        ("8-3", 3),
        ("f(2)-3", 3),
        ("on 2024-01-15", 15),
        ("a dash--5", 5),
        ("50%", 50),
        ("water is H2O, 18", 18),
        ("18, as in H2O", 18),
        ("6 is the 2nd", 6),
        ("4 in 1.2.3 and v1.2", 4),
        ("**42**", 42),
        ("__42__", 42),
        (r"\boxed{42}", 42),
        ("1,2,3", 3),
        ("Answer...42", 42),
        (".5", 0.5),
        ("1e3", 1000),
        ("1.5E-2", 0.015),
        ("+7", 7),
        ("٤٢", 42),
        ("9007199254740993", 9007199254740993),
    ],
)
def test_the_last_number_counts(text: str, value: float) -> None:
    assert only(Number(value=value).check(text)).score == 1.0
    assert only(Number(value=value + 1).check(text)).score == 0.0


def test_numbers_compare_as_decimals() -> None:
    assert only(Number(value=0.3).check("0.30")).score == 1.0
    assert only(Number(value=0.3).check(str(0.1 + 0.2))).score == 0.0
    assert only(Number(value=0.3, tolerance=0.1).check("0.2")).score == 1.0  # 0.3 - 0.2 > 0.1 in floats
    assert only(Number(value=0.3, tolerance=0.1).check("0.19999999999999999999999999999999")).score == 0.0
    assert only(Number(value=9007199254740993).check("9007199254740992")).score == 0.0


@pytest.mark.parametrize("text", ["1" * 1_000_002 + ".5", "1e9999", "-1e-9999", "1e99999", "9" * 50_000 + "e9999"])
def test_numbers_of_any_size_compare(text: str) -> None:
    check = only(Number(value=3, tolerance=1e300).check(text))
    assert check.score == float(text == "-1e-9999")
    assert len(check.message) < 150


def test_number_says_what_is_wrong() -> None:
    assert Number(value=42).check("41") == [
        Check(
            "value",
            0.0,
            "the last number is 41; it must be 42",
            "Make the last number 42.",
            {"zh": "让文中最后一个数字是 42。"},
        )
    ]
    assert only(Number(value=2.5, tolerance=0.5).check("none")) == Check(
        "value",
        0.0,
        "there is no number; it must be 2.5, give or take 0.5",
        "Make the last number 2.5, give or take 0.5.",
        {"zh": "让文中最后一个数字是 2.5（误差不超过 0.5）。"},
    )


@pytest.mark.parametrize("value", ["1", True, None, float("nan"), float("inf")])
def test_number_needs_a_finite_number(value: object) -> None:
    assert {location[:2] for location in refusals(type="number", value=value)} == {("number", "value")}


def test_number_needs_a_tolerance_of_at_least_zero() -> None:
    assert refusals(type="number", value=1, tolerance=-0.1).keys() == {("number", "tolerance")}


@pytest.mark.parametrize(
    "case", [case for cases in LANGUAGES.values() for case in cases], ids=lambda case: str(case["text"])
)
def test_the_last_number_in_each_language(case: dict[str, Any]) -> None:
    fields = {name: case[name] for name in ("tolerance", "locale") if name in case}
    check = only(Number(value=case.get("value", 0), **fields).check(case["text"]))
    if "value" in case:
        assert check.score == 1.0, check.message
    else:
        assert check.message.startswith("there is no number")


def test_there_are_enough_languages() -> None:
    assert len(LANGUAGES) >= 12
    assert min(map(len, LANGUAGES.values())) >= 5


@pytest.mark.parametrize(
    ("text", "locale", "value"),
    [
        ("1.234", None, 1.234),
        ("1.234", "en", 1.234),
        ("1.234", "de", 1234),
        ("1.234", "pt-BR", 1234),
        ("1,234", None, 1234),
        ("1,234", "de", 1.234),
        ("0,234", None, 0.234),
        ("1\u2019234.5", "de-CH", 1234.5),
        ("12 345", None, 345),
        ("12 345", "fr", 12345),
        ("12 345", "en", 345),
        ("100 200 300", None, 300),
        ("-5 300", None, 300),
        ("1,234,56", None, 56),
    ],
)
def test_a_locale_decides_what_the_text_leaves_open(text: str, locale: str | None, value: float) -> None:
    assert only(Number(value=value, locale=locale).check(text)).score == 1.0


@pytest.mark.parametrize("locale", ["xx-YY", "klingon", "d", "de_DE"])
def test_an_unknown_locale_is_refused(locale: str) -> None:
    assert refusals(type="number", value=1, locale=locale).keys() & {("number", "locale"), ("number",)}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("一万二千", 12000),
        ("一百二十三万四千五百六十七", 1234567),
        ("一千零一夜", 1001),
        ("一億二千萬", 120_000_000),
        ("壹佰贰拾", 120),
        ("两千零五", 2005),
        ("1万亿", 10**12),
        ("3百万", 3_000_000),
        ("二〇二四年", 2024),
        ("负五十", -50),
        ("共3,500万", 35_000_000),
        ("答案是五。", 5),
        ("等于七", 7),
        ("两个", 2),
        ("第五个", 5),
        ("5万", 50000),
    ],
)
def test_chinese_numerals(text: str, value: int) -> None:
    numeral = find_last_numeral(text)
    assert numeral is not None
    assert numeral.value == value


@pytest.mark.parametrize(
    "text",
    ["一个", "三四个", "千万别", "万一", "一千二", "十分好", "周三人多", "统一", "百分百", "一起", "二三十", "五千百"],
)
def test_characters_that_may_be_no_number_are_none(text: str) -> None:
    assert find_last_numeral(text) is None


@given(st.integers(-(10**15), 10**15), st.sampled_from([",", "\u202f", "\u00a0", "\u2019"]))
def test_thousands_are_read_back(number: int, separator: str) -> None:
    numeral = find_last_numeral(f"it is {number:,}.".replace(",", separator))
    assert numeral is not None
    assert numeral.value == number


@given(
    st.decimals(0, 10**9, places=2),
    st.sampled_from(["٠١٢٣٤٥٦٧٨٩", "۰۱۲۳۴۵۶۷۸۹", "०१२३४५६७८९", "๐๑๒๓๔๕๖๗๘๙", "０１２３４５６７８９"]),
)
def test_digits_of_every_script_are_read_back(number: Decimal, digits: str) -> None:
    numeral = find_last_numeral(f"{number:.2f}".translate(str.maketrans("0123456789", digits)))
    assert numeral is not None
    assert numeral.value == number
