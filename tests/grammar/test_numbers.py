import re
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.grammar.numbers import Numbers, expressions


def written(numbers: Numbers, text: str) -> bool:
    """Whether the expressions write a text."""
    return any(re.fullmatch(option, text) for option in expressions(numbers))


def within(numbers: Numbers, value: Decimal) -> bool:
    above = numbers.low is None or value > numbers.low or (value == numbers.low and not numbers.open_low)
    below = numbers.high is None or value < numbers.high or (value == numbers.high and not numbers.open_high)
    return above and below


BOUNDS = st.none() | st.decimals(-2000, 2000, places=0) | st.decimals(-20, 20, places=2) | st.sampled_from([Decimal(0)])


@st.composite
def intervals(draw: st.DrawFn) -> Numbers:
    low, high = draw(BOUNDS), draw(BOUNDS)
    if low is not None and high is not None and low > high:
        low, high = high, low
    return Numbers(low, high, draw(st.booleans()), draw(st.booleans()), draw(st.sampled_from([0, 2, 9])))


@given(numbers=intervals(), offset=st.decimals(-12, 12, places=3), anchor=st.integers(-2100, 2100))
def test_only_numbers_of_the_interval_are_written(numbers: Numbers, offset: Decimal, anchor: int) -> None:
    for base in (numbers.low, numbers.high, Decimal(anchor)):
        value = (base or Decimal(0)) + offset
        for text in (str(value), str(value.quantize(Decimal("0.01"))), str(int(value))):
            if written(numbers, text):
                assert within(numbers, Decimal(text))
                assert numbers.decimals or "." not in text


@given(numbers=intervals(), value=st.integers(-2100, 2100))
def test_every_integer_of_the_interval_is_written(numbers: Numbers, value: int) -> None:
    assert written(numbers, str(value)) == within(numbers, Decimal(value))


@pytest.mark.parametrize(
    ("numbers", "good", "bad"),
    [
        (Numbers(), ["0", "-1", "1.5", "-0.25", "123456789012345678"], ["01", "1.", ".5", "1e5", "+1", "-"]),
        (Numbers(decimals=0), ["0", "-7", "42"], ["-0", "1.0", "00"]),
        (Numbers(Decimal(0), Decimal(1)), ["0", "1", "0.5", "0.123456789"], ["1.1", "-0.1", "2"]),
        (Numbers(Decimal(0), Decimal(1), open_low=True, open_high=True), ["0.5", "0.01"], ["0", "1", "0.00", "1.00"]),
        (Numbers(Decimal("0.5"), Decimal("0.75")), ["0.50", "0.75", "0.62"], ["0.49", "0.76", "0", "1"]),
        (Numbers(Decimal("-1.5"), Decimal("-0.5")), ["-1", "-0.50", "-1.50", "-1.20"], ["0", "-0.49", "-2"]),
        (Numbers(Decimal(0), None, decimals=2), ["19.99", "5", "0.1"], ["0.123", "-1"]),
        (Numbers(decimals=0, zeros=2), ["0", "100", "-2500"], ["50", "0100", "-0"]),
        (Numbers(Decimal(5), Decimal(950), decimals=0, zeros=1), ["10", "950"], ["0", "5", "960"]),
    ],
)
def test_examples(numbers: Numbers, good: list[str], bad: list[str]) -> None:
    assert [text for text in good if not written(numbers, text)] == []
    assert [text for text in bad if written(numbers, text)] == []


@pytest.mark.parametrize(
    ("numbers", "empty"),
    [
        (Numbers(Decimal(2), Decimal(1)), True),
        (Numbers(Decimal(1), Decimal(1)), False),
        (Numbers(Decimal(1), Decimal(1), open_low=True), True),
        (Numbers(Decimal("0.2"), Decimal("0.8"), decimals=0), True),
        (Numbers(Decimal("0.2"), Decimal("0.8")), False),
        (Numbers(Decimal(5), None), False),
    ],
)
def test_an_interval_may_be_empty(numbers: Numbers, empty: bool) -> None:
    assert numbers.is_empty is empty
    assert (expressions(numbers) == []) is empty
