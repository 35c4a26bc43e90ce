import pytest

from service.evaluators.base import Check
from service.evaluators.text.number import Number
from tests.evaluators.text.checks import only, refusals


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
        Check("value", 0.0, "the last number is 41; it must be 42", "Make the last number 42.")
    ]
    assert only(Number(value=2.5, tolerance=0.5).check("none")) == Check(
        "value",
        0.0,
        "there is no number; it must be 2.5, give or take 0.5",
        "Make the last number 2.5, give or take 0.5.",
    )


@pytest.mark.parametrize("value", ["1", True, None, float("nan"), float("inf")])
def test_number_needs_a_finite_number(value: object) -> None:
    assert {location[:2] for location in refusals(type="number", value=value)} == {("number", "value")}


def test_number_needs_a_tolerance_of_at_least_zero() -> None:
    assert refusals(type="number", value=1, tolerance=-0.1).keys() == {("number", "tolerance")}
