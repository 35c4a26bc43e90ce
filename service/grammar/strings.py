"""Strings in JSON, as regular expressions: any string within a length, or those that a pattern describes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import re2

from service.expressions import (
    LAST,
    Concatenation,
    Edge,
    Either,
    Node,
    Range,
    Repeat,
    Set,
    complement,
    edges,
    parse,
)

CHARACTER = r'(?:[^"\\\x00-\x1F\x7F]|\\["\\nrt])'
"""One character of a string, or its escape. llguidance has masks of the first class ready, and any other costs several
times as much for each token."""
PLAIN: tuple[Range, ...] = ((0x20, 0x21), (0x23, 0x5B), (0x5D, 0x7E), (0xA0, 0xD7FF), (0xE000, 0xFFFD), (0x10000, LAST))
"""The characters that are not escaped in a JSON string, without unpaired surrogates and control characters."""
ESCAPED = {0x22: '"', 0x5C: "\\", 0x08: "b", 0x0C: "f", 0x0A: "n", 0x0D: "r", 0x09: "t"}

_DAYS = r"(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\d|30)|02-(?:0[1-9]|1\d|2[0-8]))"
_DATE = rf"[12]\d{{3}}-{_DAYS}"
_CLOCK = r"(?:[01]\d|2[0-3]):[0-5]\d"
_TIME = rf"{_CLOCK}:[0-5]\d(?:\.\d{{1,6}})?(?:Z|[+-]{_CLOCK})"
_SPAN = r"T(?:\d{1,3}H(?:\d{1,2}M(?:\d{1,2}S)?)?|\d{1,3}M(?:\d{1,2}S)?|\d{1,3}S)"
_MONTHS = r"\d{1,3}M(?:\d{1,2}D)?"
_DURATION = rf"P(?:\d{{1,3}}W|\d{{1,3}}D(?:{_SPAN})?|{_MONTHS}|\d{{1,3}}Y(?:{_MONTHS})?|{_SPAN})"
_LABEL = "[a-z0-9]{1,20}(?:-[a-z0-9]{1,20}){0,2}"
_HOST = rf"{_LABEL}(?:\.{_LABEL}){{0,3}}\.[a-z]{{2,12}}"
_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_PATH = r"(?:/[A-Za-z0-9._~-]{0,60}){0,8}(?:\?[A-Za-z0-9._~=&-]{0,100})?"
_NAME = r"[A-Za-z0-9_+-]{1,20}"
_GROUP = "[0-9a-f]{1,4}"
FORMATS = {
    "date": rf"^{_DATE}$",
    "time": rf"^{_TIME}$",
    "date-time": rf"^{_DATE}T{_TIME}$",
    "duration": rf"^{_DURATION}$",
    "email": rf"^{_NAME}(?:\.{_NAME}){{0,2}}@{_HOST}$",
    "hostname": rf"^{_HOST}$",
    "ipv4": rf"^{_OCTET}(?:\.{_OCTET}){{3}}$",
    "ipv6": rf"^{_GROUP}(?::{_GROUP}){{7}}$",
    "uuid": "^[0-9a-f]{8}-[0-9a-f]{4}-[1-5][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$",
    "uri": rf"^https?://{_HOST}(?::[1-9]\d{{1,3}})?{_PATH}$",
}
"""Formats as patterns. Each matches values of the format, but not all of them."""


@dataclass(frozen=True, slots=True)
class Strings:
    """The strings of ``least`` to ``most`` code points that match every pattern. ``most`` is None for no limit."""

    least: int = 0
    most: int | None = None
    patterns: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        return self.most is not None and self.least > self.most


@lru_cache(maxsize=256)
def expression(strings: Strings) -> str:
    """A regular expression for these strings, with their quotation marks, and no others.

    At most one pattern is supported, and lengths with it only if all its matches keep within them. Raises ValueError
    with what is not supported.
    """
    if not strings.patterns:
        return f'"{_repeat(CHARACTER, strings.least, strings.most)}"'
    if len(strings.patterns) > 1:
        raise ValueError("a string cannot have two patterns or formats")
    options = [_unanchor(option) for option in _options(parse(strings.patterns[0]))]
    for option in options:
        least, most = _lengths(option)
        if least < strings.least:
            raise ValueError("minLength cannot be used with a pattern or format that allows shorter strings")
        if strings.most is not None and (most is None or most > strings.most):
            raise ValueError("maxLength cannot be used with a pattern or format that allows longer strings")
    return f'"(?:{"|".join(map(_write, options))})"'


def _options(node: Node) -> Sequence[Node]:
    match node:
        case Either(options):
            return [inner for option in options for inner in _options(option)]
        case Concatenation((single,)):
            return _options(single)
        case _:
            return [node]


_REST = Repeat(Set(PLAIN), 0, None)


def _unanchor(node: Node) -> Concatenation:
    """Allow any text before and after a pattern, unless it is anchored: a pattern matches anywhere in a string."""
    parts = list(node.parts) if isinstance(node, Concatenation) else [node]
    begins, ends = parts[:1] == [Edge("^")], parts[-1:] == [Edge("$")] and len(parts) > 1
    parts = parts[int(begins) : len(parts) - int(ends)]
    if any(edges(parts)):
        raise ValueError("a pattern may have ^ at its beginning and $ at its end, and \\b nowhere")
    return Concatenation((*(() if begins else (_REST,)), *parts, *(() if ends else (_REST,))))


def _lengths(node: Node) -> tuple[int, int | None]:
    match node:
        case Set():
            return 1, 1
        case Edge():
            return 0, 0
        case Concatenation(parts):
            bounds = [_lengths(part) for part in parts]
            return sum(least for least, _ in bounds), _sum(most for _, most in bounds)
        case Either(options):
            bounds = [_lengths(option) for option in options]
            most = [most for _, most in bounds if most is not None]
            return min(least for least, _ in bounds), max(most) if len(most) == len(bounds) else None
        case Repeat(inner, low, high):
            least, longest = _lengths(inner)
            return least * low, None if high is None or longest is None else longest * high


def _sum(numbers: Iterable[int | None]) -> int | None:
    total = 0
    for number in numbers:
        if number is None:
            return None
        total += number
    return total


def _write(node: Node) -> str:
    match node:
        case Set():
            return _character(node)
        case Concatenation(parts):
            return "".join(map(_write, parts))
        case Either(options):
            return f"(?:{'|'.join(map(_write, options))})"
        case Repeat(inner, least, most):
            return _repeat(f"(?:{_write(inner)})", least, most)
        case Edge():
            raise ValueError("an edge is inside a pattern")


def _repeat(item: str, least: int, most: int | None) -> str:
    if most is None:
        return f"{item}*" if least == 0 else f"{item}{{{least},}}"
    return "" if most == 0 else f"{item}{{{least},{most}}}"


def _character(node: Set) -> str:
    ranges = _ranges(node)
    options = list[str]()
    if plain := _intersect(ranges, PLAIN):
        options.append(f"[{''.join(_range(first, last) for first, last in plain)}]")
    escapes = "".join(
        f"\\x{ord(letter):02X}"
        for code, letter in ESCAPED.items()
        if any(first <= code <= last for first, last in ranges)
    )
    if escapes:
        options.append(rf"\\[{escapes}]")
    if not options:
        raise ValueError("a pattern needs a character that cannot be written here")
    return options[0] if len(options) == 1 else f"(?:{'|'.join(options)})"


def _range(first: int, last: int) -> str:
    return f"\\x{{{first:X}}}" if first == last else f"\\x{{{first:X}}}-\\x{{{last:X}}}"


def _ranges(node: Set) -> Sequence[Range]:
    """The characters of a set. Those outside the Basic Multilingual Plane are left out if it has a property."""
    ranges = list(node.ranges)
    for name, negated in node.properties:
        found = _property_ranges(name)
        ranges += _intersect(complement(found), _BASIC) if negated else found
    if not node.negated:
        return sorted(ranges)
    return _intersect(complement(ranges), _BASIC) if node.properties else complement(ranges)


_BASIC: tuple[Range, ...] = ((0, 0xD7FF), (0xE000, 0xFFFD))


@lru_cache(maxsize=512)
def _property_ranges(name: str) -> tuple[Range, ...]:
    options = re2.Options()
    options.log_errors = False
    try:
        compiled = re2.compile(rf"\p{{{name}}}+", options)
    except re2.error:
        raise ValueError("a pattern's \\p{ is not supported with that name") from None
    blocks = ("".join(map(chr, range(first, last + 1))) for first, last in _BASIC)
    return tuple((ord(run[0][0]), ord(run[0][-1])) for block in blocks for run in compiled.finditer(block))


def _intersect(left: Sequence[Range], right: Sequence[Range]) -> list[Range]:
    pairs = ((max(a[0], b[0]), min(a[1], b[1])) for a in left for b in right)
    return sorted({(first, last) for first, last in pairs if first <= last})
