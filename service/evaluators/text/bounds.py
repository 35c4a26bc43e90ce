"""How many of something a text may have, and how instructions and messages say it."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from annotated_types import Ge, Le

from service.evaluators.base import STRICT

Count = Annotated[int, Ge(0), Le(1_000_000)]


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """How many of something a text may have, both ends included. At least one of ``min`` and ``max`` is given."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    min: Count | None = None
    max: Count | None = None

    def __post_init__(self) -> None:
        if self.min is None and self.max is None:
            raise ValueError("min or max is needed")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min is greater than max")

    def __str__(self) -> str:
        if self.max == 0:
            return "no"
        if self.min == self.max:
            return f"exactly {self.max}"
        if self.min is None:
            return f"at most {self.max}"
        return f"at least {self.min}" if self.max is None else f"{self.min} to {self.max}"

    def score(self, count: int) -> float:
        """1 within the bounds; else the smaller of ``count`` and the broken bound, divided by the larger."""
        if self.min is not None and count < self.min:
            return count / self.min
        if self.max is not None and count > self.max:
            return self.max / count
        return 1.0

    def verdict(self, count: int, plural: str) -> str:
        """What is wrong with a count outside the bounds: "61 words; at most 40 are allowed"."""
        fault = "allowed" if self.max is not None and count > self.max else "needed"
        bounds = "none" if self.max == 0 else str(self)
        verb = "is" if bounds.endswith((" 1", "none")) else "are"
        return f"{amount(count, plural)}; {bounds} {verb} {fault}"


def amount(quantity: int | Bounds, plural: str) -> str:
    """A quantity of things whose plural ends in "s": "1 word", "at most 40 words"."""
    return f"{quantity} {plural.removesuffix('s') if f' {quantity}'.endswith(' 1') else plural}"


def amount_in_chinese(bounds: Bounds, unit: str) -> str:
    """A quantity in Chinese. ``unit`` is a measure word, with or without a noun: "不超过 30 个词", "正好 3 次"."""
    if bounds.max == 0:
        return f"0 {unit}"
    if bounds.min == bounds.max:
        return f"正好 {bounds.max} {unit}"
    if bounds.min is None:
        return f"不超过 {bounds.max} {unit}"
    return f"至少 {bounds.min} {unit}" if bounds.max is None else f"{bounds.min} 到 {bounds.max} {unit}"
