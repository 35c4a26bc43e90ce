"""A text as a JSON document, whose numbers are what is written: 19.99 is a multiple of 0.01."""

import json
from decimal import Decimal, InvalidOperation
from typing import Any

from pydantic_core import from_json

from service.evaluators.text.fences import whole_fence

MAX_DIGITS = 4300
REPLY_WITH_JSON = "Reply with JSON only, without any other text."


class Exact(Decimal):
    """A number as it is written. A float of 19.99 is no multiple of one of 0.01."""

    def __repr__(self) -> str:
        return str(self)


def json_document(text: str) -> Any:
    """The JSON document that is the whole text, bare or in one Markdown fence; ValueError says why there is none.

    A fence may name JSON as its language, in any of its kinds, or none. Numbers with a point or an exponent are Exact.
    Half a surrogate pair is refused, since it could not be sent on, and so are nesting deeper than 200 and numbers of
    more than 4,300 digits.
    """
    return bare_document(unwrap(text.strip()))


def unwrap(text: str) -> str:
    """What is in the Markdown fence that is the whole text, if there is one that may hold JSON; else the text."""
    fence = whole_fence(text)
    return fence.body if fence is not None and (not fence.language or "json" in fence.language) else text


def bare_document(text: str) -> Any:
    """The JSON document that is the whole text, without a fence. ValueError as above."""
    try:
        from_json(text, allow_inf_nan=False)
        return json.loads(text, parse_float=_parse_number)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from None


def _parse_number(digits: str) -> Exact:
    if len(digits) > MAX_DIGITS:
        raise ValueError("a number is too long")
    try:
        return Exact(digits)
    except InvalidOperation:
        raise ValueError("a number's exponent is too large") from None


def make_exact(value: Any) -> Any:
    """A value of JSON with its numbers Exact. A float means the shortest number that is read as it."""
    match value:
        case dict():
            return {name: make_exact(item) for name, item in value.items()}
        case list():
            return [make_exact(item) for item in value]
        case float():
            return Exact(repr(value))
        case _:
            return value


def is_multiple(number: Decimal | int, unit: Decimal | int) -> bool:
    """Exact, and fast for any exponent: a 10^x is a multiple of b 10^y where b divides a 10^(x - y)."""
    (digits, exponent), (divisor, unit_exponent) = _scale(number), _scale(unit)
    shift = exponent - unit_exponent
    if digits == 0 or shift >= 0:
        return digits * pow(10, shift, divisor) % divisor == 0 if digits else True
    return -shift <= len(str(abs(digits))) and digits % (divisor * 10**-shift) == 0


def _scale(number: Decimal | int) -> tuple[int, int]:
    """The two numbers a and x of a 10^x."""
    if isinstance(number, int):
        return number, 0
    _, digits, exponent = number.as_tuple()
    return int("".join(map(str, digits))) * (-1 if number < 0 else 1), int(exponent)
