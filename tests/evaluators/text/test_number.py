from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.evaluators.base import Check
from service.evaluators.text.number import Number
from service.evaluators.text.numerals import find_last_numeral
from tests.support.checks import assert_last, only, refusals


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
    ("text", "value"),
    [
        (r"Altogether that makes \boxed{12{,}480}.", 12480),
        (r"Hence $x = \frac{3}{4}$.", 0.75),
        (r"It is about $6 \times 10^{23}$", 6e23),
        (r"We get $12\,480\%$ of $x_{2}$.", 12480),
        (r"Thus $x_{12} = y^2$, and $\sqrt{2}$ has no end.", None),
        (r"It costs \$1{,}234.50 in all.", 1234.5),
        (r"\boxed{$9{,}500}", 9500),
        (r"\boxed{8,000}", 8000),
        (r"\boxed{-5}", -5),
        (r"\boxed{\frac{1}{2}}", 0.5),
        (r"\boxed{-\frac{1}{2}}", -0.5),
        (r"$\frac12$", 0.5),
        (r"$\tfrac34$", 0.75),
        (r"$\frac{-1}{2}$", -0.5),
        (r"$2\frac{1}{2}$", 2.5),
        (r"\boxed{5\text{ cm}}", 5),
        (r"\boxed{5~\text{cm}^2}", 5),
        (r"\boxed{5 \text{ m}^{2}}", 5),
        (r"\boxed{50\%}", 50),
        (r"\boxed{1,\!000}", 1000),
        (r"\boxed{\$5}", 5),
        (r"\boxed{\text{5}}", 5),
        (r"\boxed{3.5 \times 10^{-3}}", 0.0035),
        (r"\boxed{2^{10}}", None),
        (r"\boxed{x = 5}", 5),
        (r"\boxed{30^\circ}", 30),
        (r"$90^{\circ}$", 90),
        (r"\boxed{5\pi}", None),
        (r"\boxed{2\sqrt{3}}", None),
        (r"$\frac{\sqrt{3}}{2}$", None),
        (r"$\frac{\pi}{6}$", None),
        (r"$\sqrt[3]{8}$", None),
        (r"$\frac{1,000}{2}$", 500),
        (r"$\frac{22}{7}$", 3.142857142857143),
        (r"$\binom{5}{2}$", None),
        (r"\(x = 3\)", 3),
        (r"$-\dfrac{7}{4}$", -1.75),
        (r"\boxed{12\,345.6}", 12345.6),
        (r"$3\cdot10^{8}$", 300000000),
        (r"\boxed{\dfrac{3}{4}\text{ hours}}", 0.75),
        (r"\boxed{7\,\text{m/s}}", 7),
        (r"\boxed{$18}", 18),
        (r"\frac{x}{7}", None),
        (r"$\frac{1}{\sqrt{2}}$", None),
        (r"$\log_2 8 = 3$", 3),
        (r"$\alpha = 5$", 5),
        (r"$5\times 3=15$", 15),
        (r"$5\alpha$", 5),
        (r"$\sqrt{16} = 4$", 4),
        (r"$\text{Answer: }5$", 5),
        (r"$5^\circ$C", 5),
        (r"\(\frac{2}{3}\)", 0.6666666666666666),
        (r"$\frac{1}{2}\%$", 0.5),
        (r"$1 + \frac{1}{2} = 1.5$", 1.5),
        (r"$3 \frac{1}{4}$", 3.25),
        (r"$x=2\frac13$", 2.3333333333333335),
    ],
)
def test_latex_is_read_as_in_mathematics(text: str, value: float | None) -> None:
    assert_last(text, value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Der Betrag von Fr. 1'234.50 ist fällig.", 1234.5),
        ("Custa R$1.299,90.", 1299.9),
        ("Սա 42 է։", 42),
        ("3 miljoonaa", 3000000),
        ("3 εκατομμύρια", 3000000),
        ("5 millió forint", 5000000),
        ("5 milionů korun", 5000000),
        ("2 milijarde", 2000000000),
        ("3 miljard", 3000000000),
        ("100лв.", 100),
        ("5 கோடி", 50000000),
        ("25 de milioane de lei", 25000000),
        ("1.5 lakh crore", 1500000000000),
    ],
)
def test_numbers_in_more_languages(text: str, value: float) -> None:
    assert_last(text, value)


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


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("约三点一四一五九二六五三五", "3.1415926535"),
        ("一百二十三点四五", "123.45"),
        ("三点五万亿", "3500000000000"),
        ("三点" + "一" * 100, None),
        ("十二亿三千四百五十六万", "1234560000"),
        ("有三点五个苹果", "3.5"),
        ("百分之九十九点九", "99.9"),
        ("5分之3", "0.6"),
        ("第一点一共", None),
    ],
)
def test_decimals_in_characters(text: str, value: str | None) -> None:
    numeral = find_last_numeral(text)
    assert (numeral and numeral.value / numeral.divisor) == (value and Decimal(value))


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
