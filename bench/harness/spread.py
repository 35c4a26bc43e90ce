"""A value over all repetitions, with the minimum and maximum of single ones."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Spread:
    """``value``: over all repetitions. ``least``, ``most``: the extremes of single ones.

    Formats each of its numbers: ``f"{Spread(1.5, 1, 2):.2f}"`` is "1.50 (1.00 to 2.00)". Without a format they have
    three digits, or all before the point.
    """

    value: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """The median of values with their extremes."""
        return cls(median(values), min(values), max(values))

    def __format__(self, form: str) -> str:
        value, least, most = (
            format(number, form) if form else format_number(number) for number in (self.value, self.least, self.most)
        )
        return f"{value} ({least} to {most})"

    def __str__(self) -> str:
        return format(self, "")


def compare_pairs(above: Sequence[T], below: Sequence[T], value: Callable[[Sequence[T]], float]) -> Spread:
    """The ratio of two arms' values, over all their runs together and for each pair of runs of one repetition."""
    each = [value([one]) / value([other]) for one, other in zip(above, below, strict=True)]
    return Spread(value(above) / value(below), min(each), max(each))


def format_number(value: float) -> str:
    """With three digits, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
