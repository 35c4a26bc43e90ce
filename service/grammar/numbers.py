"""Numbers between two bounds, as regular expressions: plain decimals without an exponent."""

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, localcontext

MOST_DIGITS = 18
"""Digits before the point. More would not fit in the integers of most languages."""
MOST_DECIMALS = 9
_LIMIT = 10**MOST_DIGITS - 1
LEAST_DECIMALS = 2
"""Digits after the point with which numbers close to a bound are written."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """The numbers in an interval.

    low, high: the bounds; None for no bound. open_low, open_high: whether the bound itself is excluded.
    decimals: the most digits after the point; 0 for integers. zeros: how many zeros end each integer.
    """

    low: Decimal | None = None
    high: Decimal | None = None
    open_low: bool = False
    open_high: bool = False
    decimals: int = MOST_DECIMALS
    zeros: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether no number is in the interval, with any number of digits; no integer if ``decimals`` is 0."""
        if self.low is None or self.high is None:
            return False
        if self.decimals == 0:
            return self.first(0) > self.last(0)
        return self.low > self.high or (self.low == self.high and (self.open_low or self.open_high))

    def first(self, decimals: int) -> int:
        """The smallest number with ``decimals`` digits after the point, written without the point."""
        return _scale(self.low or Decimal(0), decimals, ROUND_CEILING, 1 if self.open_low else 0)

    def last(self, decimals: int) -> int:
        return _scale(self.high or Decimal(0), decimals, ROUND_FLOOR, -1 if self.open_high else 0)


def _scale(bound: Decimal, decimals: int, rounding: str, step: int) -> int:
    with localcontext() as context:
        context.prec = 10_000
        scaled = bound.scaleb(decimals)
        rounded = scaled.to_integral_value(rounding=rounding)
        return int(rounded) + (step if rounded == scaled else 0)


def expressions(numbers: Numbers) -> list[str]:
    """Alternatives that together write numbers of the interval and no others. The list is empty if the interval has no
    number of up to 18 digits before the point."""
    limit = Decimal(_LIMIT)
    low = -limit if numbers.low is None else max(numbers.low, -limit)
    high = limit if numbers.high is None else min(numbers.high, limit)
    open_low, open_high = numbers.open_low and low == numbers.low, numbers.open_high and high == numbers.high
    clamped = Numbers(low, high, open_low, open_high, numbers.decimals, numbers.zeros)
    found = list[str]()
    if high >= 0:
        begin, strict = (low, open_low) if low > 0 or (low == 0 and open_low) else (Decimal(0), False)
        found += _positive_expressions(
            Numbers(begin, high, strict, open_high, clamped.decimals, clamped.zeros), zero=True
        )
    if low < 0:
        begin, strict = (-high, open_high) if high < 0 or (high == 0 and open_high) else (Decimal(0), False)
        mirrored = Numbers(begin, -low, strict, open_low, clamped.decimals, clamped.zeros)
        found += [f"-(?:{expression})" for expression in _positive_expressions(mirrored, zero=False)]
    return found


def _positive_expressions(numbers: Numbers, *, zero: bool) -> Iterator[str]:
    if numbers.zeros:
        yield from _multiple_expressions(numbers, zero=zero)
        return
    first, last = numbers.first(0), numbers.last(0)
    if (begin := max(first, 0 if zero else 1)) <= last:
        yield _digits(begin, last, 0)
    if numbers.decimals == 0:
        return
    inner_last = last if last == _LIMIT else last - 1
    if first <= inner_last:  # if a whole bound is excluded, ``first`` is already one more
        yield rf"(?:{_digits(first, inner_last, 0)})\.[0-9]{{1,{numbers.decimals}}}"
    yield from _edge_expressions(numbers)


def _edge_expressions(numbers: Numbers) -> Iterator[str]:
    """The numbers between a bound and the next integer inside it, with as many decimals as the bounds need."""
    needed = max(1, *map(_count_decimals, (numbers.low, numbers.high))) + (numbers.open_low or numbers.open_high)
    for decimals in sorted({1, LEAST_DECIMALS, min(needed, numbers.decimals)}):
        if decimals > numbers.decimals:
            continue
        unit = 10**decimals
        begin, end = numbers.first(decimals), numbers.last(decimals)
        low_end = min(end, numbers.first(0) * unit - 1)
        if begin <= low_end:
            yield _digits(begin, low_end, decimals)
        high_begin = max(begin, numbers.last(0) * unit, low_end + 1)
        if high_begin <= end < _LIMIT * unit:
            yield _digits(high_begin, end, decimals)


def _multiple_expressions(numbers: Numbers, *, zero: bool) -> Iterator[str]:
    """Multiples of a power of ten."""
    unit = 10**numbers.zeros
    first, last = -(-numbers.first(0) // unit), numbers.last(0) // unit
    if zero and first <= 0 <= last:
        yield "0"
    if max(first, 1) <= last:
        yield f"(?:{_digits(max(first, 1), last, 0)}){'0' * numbers.zeros}"


def _count_decimals(bound: Decimal | None) -> int:
    exponent = 0 if bound is None else int(bound.normalize().as_tuple().exponent)
    return max(0, -exponent)


def _digits(first: int, last: int, decimals: int) -> str:
    """The numbers first, first + 1, … last, with a point before the last ``decimals`` digits."""
    options, whole_widths = list[str](), list[int]()
    for whole in range(1, len(str(last)) + 1):
        least = 0 if whole == 1 else 10 ** (whole - 1 + decimals)
        most = 10 ** (whole + decimals) - 1
        begin, end = max(first, least), min(last, most)
        if whole > 1 and (begin, end) == (least, most):
            whole_widths.append(whole)
        elif begin <= end:
            width = whole + decimals
            options.append(_span(f"{begin:0{width}d}", f"{end:0{width}d}", decimals))
    if whole_widths:  # they are consecutive
        behind = rf"\.[0-9]{{{decimals}}}" if decimals else ""
        options.append(f"[1-9][0-9]{{{whole_widths[0] - 1},{whole_widths[-1] - 1}}}{behind}")
    return "|".join(options)


def _span(first: str, last: str, decimals: int) -> str:
    """The numbers from ``first`` to ``last``, which have the same number of digits."""
    if not first:
        return ""
    point = r"\." if 0 < decimals == len(first) else ""
    rest = len(first) - 1
    if first == "0" * len(first) and last == "9" * len(last):
        return f"{_any_digits(len(first), decimals)}"
    if first[0] == last[0]:
        return f"{point}{first[0]}{_span(first[1:], last[1:], decimals)}"
    options = list[str]()
    begin, end = int(first[0]), int(last[0])
    if first[1:] != "0" * rest:
        options.append(f"{begin}{_span(first[1:], '9' * rest, decimals)}")
        begin += 1
    if last[1:] != "9" * rest:
        options.append(f"{end}{_span('0' * rest, last[1:], decimals)}")
        end -= 1
    if begin <= end:
        options.append(f"[{begin}-{end}]{_any_digits(rest, decimals)}")
    return f"{point}(?:{'|'.join(options)})"


def _any_digits(length: int, decimals: int) -> str:
    """Any digits."""
    before, behind = max(0, length - decimals), min(length, decimals)
    parts = [f"[0-9]{{{before}}}"] if before else []
    if behind:
        parts += [r"\."] if behind == decimals else []
        parts.append(f"[0-9]{{{behind}}}")
    return "".join(parts)
