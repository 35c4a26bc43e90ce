"""A verifier of the last number in the text."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Annotated, Literal

from annotated_types import Ge, Len
from babel import Locale, UnknownLocaleError
from babel.numbers import get_decimal_symbol, get_group_symbol

from service.constraints.algebra import Constraint, Unstated
from service.evaluators.base import Check, RefusedField, Verifier
from service.evaluators.text.numerals import DecimalMark, find_last_numeral
from service.evaluators.text.words import excerpt


@dataclass(frozen=True, kw_only=True)
class Number(Verifier):
    """Whether the last number in the text is ``value``, give or take ``tolerance``, in exact decimal arithmetic.

    ``locale``, such as "de" or "fr-CH", decides where the text alone is ambiguous: "1.234" is a little over one, but
    over a thousand in German. ``numerals`` says what counts as a number.
    """

    type: Literal["number"] = "number"
    value: int | float
    tolerance: Annotated[float, Ge(0.0)] = 0.0
    locale: Annotated[str, Len(2, 35)] | None = None

    def __post_init__(self) -> None:
        _ = self._marks  # which refuses an unknown locale

    @cached_property
    def _marks(self) -> tuple[DecimalMark | None, bool]:
        """The locale's decimal mark, and whether it separates thousands by spaces."""
        if self.locale is None:
            return None, False
        try:
            locale = Locale.parse(self.locale, sep="-")
        except (ValueError, UnknownLocaleError):
            raise RefusedField("locale", f"{self.locale} is not a known locale, such as de or fr-CH") from None
        decimal: DecimalMark = "," if get_decimal_symbol(locale) == "," else "."
        return decimal, get_group_symbol(locale).isspace()

    def constraints(self) -> Sequence[Constraint]:
        return [Constraint("number.value", Unstated("a grammar would give the answer away"))]

    def check(self, text: str) -> Sequence[Check]:
        decimal, spaces = self._marks
        numeral = find_last_numeral(text, decimal, spaces=spaces)
        wanted = f"{self.value}, give or take {self.tolerance}" if self.tolerance else f"{self.value}"
        if numeral is None:
            score, fault = 0.0, "there is no number"
        else:
            score = float(numeral.is_near(Decimal(str(self.value)), Decimal(str(self.tolerance))))
            fault = f"the last number is {excerpt(numeral.text)}"
        chinese = f"{self.value}（误差不超过 {self.tolerance}）" if self.tolerance else f"{self.value}"
        return [
            Check(
                "value",
                score,
                f"{fault}; it must be {wanted}",
                f"Make the last number {wanted}.",
                {"zh": f"让文中最后一个数字是 {chinese}。"},
            )
        ]
