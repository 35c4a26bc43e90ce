"""A text as a JSON document with exact numbers: 19.99 is a multiple of 0.01."""

import json
from decimal import Decimal, InvalidOperation
from typing import Any

import regex
from pydantic_core import from_json

from service.evaluators.text.fences import whole_fence

MAX_DIGITS = 4300
_STRING_OR_COMMA = regex.compile(r"(?P<string>\"(?:[^\"\\]|\\.)*+\")|,(?=\s*+[}\]])", regex.DOTALL)
"""A string, or a comma before a closing bracket."""
_STRING_OR_BRACKET = regex.compile(r"\"(?:[^\"\\]|\\.)*+\"?|[{}\[\]]", regex.DOTALL)
_SCALARS = '"-0123456789tfn'
"""Characters with which a JSON value begins that is neither an object nor a list."""
_CLOSING_FENCE = regex.compile(r"`{3,}+|~{3,}+|[`~]++\Z")
"""A closing fence, or the beginning of one at the end of a text that is still being written."""
_AROUND_BLOCK = ("", "\n", "`", "~")
REPLY_WITH_JSON = "Reply with JSON only, without any other text."


class Exact(Decimal):
    """A number exactly as it is written. As floats, 19.99 is not a multiple of 0.01."""

    def __repr__(self) -> str:
        return str(self)


def json_document(text: str) -> Any:
    """Parse the whole text as one JSON document, bare or in one Markdown fence. Raises ValueError with the reason.

    A fence may name any kind of JSON as its language, or no language. Numbers with a point or an exponent become Exact.
    Half a surrogate pair is refused, because it could not be sent on. So are nesting deeper than 200 and numbers of
    more than 4,300 digits.

    >>> json_document('```json\\n[19.99]\\n```')
    [19.99]
    """
    return bare_document(unwrap(text.strip()))


def unwrap(text: str) -> str:
    """The content of the Markdown fence around the whole text, if it may hold JSON; else the text."""
    fence = whole_fence(text)
    return fence.body if fence is not None and (not fence.language or "json" in fence.language) else text


def is_no_document(beginning: str) -> bool:
    """Whether no text that begins like this has JSON and nothing else, even if trailing commas are let pass."""
    body = beginning.lstrip()
    if body.startswith(("`", "~")):
        body = body.partition("\n")[2]
        body = _CLOSING_FENCE.split(body.lstrip(), maxsplit=1)[0]
    if not body:
        return False
    if body[0] not in "{[":
        return body[0] not in _SCALARS
    try:
        from_json(_STRING_OR_COMMA.sub(lambda match: match["string"] or "", body), allow_partial=True)
    except ValueError:
        return True
    return bool(body[_end_of_document(body) :].strip())


def _end_of_document(body: str) -> int:
    """Where the object or list ends with which a text begins; the end of the text if it does not."""
    depth = 0
    for match in _STRING_OR_BRACKET.finditer(body):
        depth += match[0] in ("{", "[")
        depth -= match[0] in ("}", "]")
        if depth == 0 and match[0] in ("}", "]"):
            return match.end()
    return len(body)


def extract_document(text: str) -> str | None:
    """The one object or list of JSON in a text, without a fence and text around it and without commas before a closing
    bracket; None if there is none, or more than one. A list within a line does not count: it may be a reference.

    >>> extract_document('Here it is: {"a": [1, 2,]}')
    '{"a": [1, 2]}'
    """
    start = min((at for at in map(text.find, "{[") if at >= 0), default=-1)
    end = 1 + max(map(text.rfind, "}]"))
    before, inside, after = text[:start], text[start:end], text[end:]
    alone = before.rstrip(" \t")[-1:] in _AROUND_BLOCK and after.lstrip(" \t")[:1] in _AROUND_BLOCK
    if start < 0 or len(inside) < 3 or (inside[0] == "[" and not alone):
        return None
    document = _STRING_OR_COMMA.sub(lambda match: match["string"] or "", inside)
    try:
        bare_document(document)
    except ValueError:
        return None
    return document


def bare_document(text: str) -> Any:
    """The same without a fence."""
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
    """A JSON value with its floats as Exact: each is the shortest decimal that is read as that float."""
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
    """Exact, and fast for any exponent: a 10^x is a multiple of b 10^y if b divides a 10^(x - y)."""
    (digits, exponent), (divisor, unit_exponent) = _scale(number), _scale(unit)
    shift = exponent - unit_exponent
    if digits == 0 or shift >= 0:
        return digits * pow(10, shift, divisor) % divisor == 0 if digits else True
    return -shift <= len(str(abs(digits))) and digits % (divisor * 10**-shift) == 0


def _scale(number: Decimal | int) -> tuple[int, int]:
    """The integers a and x such that the number is a 10^x."""
    if isinstance(number, int):
        return number, 0
    _, digits, exponent = number.as_tuple()
    return int("".join(map(str, digits))) * (-1 if number < 0 else 1), int(exponent)
