"""A verifier of the last number in the text."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal
from typing import Annotated, Literal

from annotated_types import Ge

from service.evaluators.base import Check, Verifier
from service.evaluators.text.words import excerpt

_NUMBER = re.compile(
    r"""
    (?: (?<![^\W_]) (?<![)\]+\u2212-]) [+\u2212-] )?  # a sign, unless it is an operator or a dash: 5-3, 2024-01
    [$€£¥]?
    (?: (?<![^\W_]) (?<!\d\.) (?: \d{1,3}(?:,\d{3})+ | \d+ ) (?:\.\d+)? | (?<![^\W_]) (?<!\.) \.\d+ )
    (?: [eE][+-]?\d{1,4} )?  # four digits bound the magnitude, and so the work
    (?! [^\W_] | \.\d )
    """,
    re.VERBOSE,
)
_NOT_DIGITS = str.maketrans({"\u2212": "-", **dict.fromkeys("$€£¥,")})
_EXACT = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN)
"""Sums and differences of the numbers that a text can state are exact in it: nothing is rounded."""


@dataclass(frozen=True, kw_only=True)
class Number(Verifier):
    """Whether the last number in the text is ``value``, give or take ``tolerance``, in exact decimal arithmetic.

    A number may have a sign, a currency sign before it, commas between thousands, a decimal point and an exponent; a
    percent sign after it is ignored. Digits that touch a letter ("H2O", "2nd", "5kg") or stand in a version ("1.2.3")
    are none.
    """

    type: Literal["number"] = "number"
    value: int | float
    tolerance: Annotated[float, Ge(0.0)] = 0.0

    def check(self, text: str) -> Sequence[Check]:
        numbers = _NUMBER.findall(text)
        wanted = f"{self.value}, give or take {self.tolerance}" if self.tolerance else f"{self.value}"
        if numbers:
            given = Decimal(numbers[-1].translate(_NOT_DIGITS))
            distance = _EXACT.subtract(given, Decimal(str(self.value))).copy_abs()
            score, fault = float(distance <= Decimal(str(self.tolerance))), f"the last number is {excerpt(numbers[-1])}"
        else:
            score, fault = 0.0, "there is no number"
        return [Check("value", score, f"{fault}; it must be {wanted}", f"Make the last number {wanted}.")]
