r"""Regular expressions as ECMA-262 defines them (with its ``u`` flag), read into a small tree and written for RE2.

JSON Schema uses this dialect. Look-around and back-references are not supported, because no automaton can run them. The
syntax of other dialects (``(?i)``, ``\Z``, possessive quantifiers) is refused by name, except for ``\pL``, ``\A`` and
``\z``, which cannot mean anything else.

>>> to_re2(parse(r"^[\u4e00-\u9fff]+\/$"))
'^[\\x{4E00}-\\x{9FFF}]+[\\x{2F}]$'
"""

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

Range = tuple[int, int]
"""The first and the last code point."""

LAST = sys.maxunicode


@dataclass(frozen=True, slots=True)
class Set:
    """A set of characters: those in ``ranges``, and those with one of the Unicode ``properties``. Each property comes
    with whether it is negated. ``negated``: whether it is all other characters instead."""

    ranges: tuple[Range, ...]
    properties: tuple[tuple[str, bool], ...] = ()
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Concatenation:
    parts: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Either:
    options: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """``node``, repeated ``least`` to ``most`` times. ``most`` is None for no limit."""

    node: "Node"
    least: int
    most: int | None
    lazy: bool = False


@dataclass(frozen=True, slots=True)
class Edge:
    """A position between characters: the start or the end of the text, a word boundary, or none."""

    kind: Literal["^", "$", "b", "B"]


Node = Set | Concatenation | Either | Repeat | Edge

DIGITS: tuple[Range, ...] = ((0x30, 0x39),)
WORD: tuple[Range, ...] = ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A))
SPACE: tuple[Range, ...] = (
    *((0x09, 0x0D), (0x20, 0x20), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A)),
    *((0x2028, 0x2029), (0x202F, 0x202F), (0x205F, 0x205F), (0x3000, 0x3000), (0xFEFF, 0xFEFF)),
)
LINE_ENDS: tuple[Range, ...] = ((0x0A, 0x0A), (0x0D, 0x0D), (0x2028, 0x2029))
_CLASSES = {"d": DIGITS, "w": WORD, "s": SPACE}
_CONTROLS = {"t": 0x09, "n": 0x0A, "v": 0x0B, "f": 0x0C, "r": 0x0D}
_LONG_NAMES = {
    "Letter": "L",
    "Lowercase_Letter": "Ll",
    "Uppercase_Letter": "Lu",
    "Titlecase_Letter": "Lt",
    "Modifier_Letter": "Lm",
    "Other_Letter": "Lo",
    "Mark": "M",
    "Number": "N",
    "Decimal_Number": "Nd",
    "Punctuation": "P",
    "Symbol": "S",
    "Separator": "Z",
    "Space_Separator": "Zs",
    "Other": "C",
}
_PROPERTY = re.compile(r"(?:(?:General_Category|gc|Script|sc|Script_Extensions|scx)=)?([A-Za-z_]+)")
_QUANTIFIER = re.compile(r"\{(\d{1,9})(?:(,)(\d{1,9})?)?\}")
_LOOKS = {"?=": "look-ahead", "?!": "look-ahead", "?<=": "look-behind", "?<!": "look-behind"}


def complement(ranges: Iterable[Range]) -> tuple[Range, ...]:
    """The code points outside the ranges."""
    gaps, begin = list[Range](), 0
    for first, last in sorted(ranges):
        if first > begin:
            gaps.append((begin, first - 1))
        begin = max(begin, last + 1)
    return (*gaps, (begin, LAST)) if begin <= LAST else tuple(gaps)


ANY = Set(complement(LINE_ENDS))


def parse(pattern: str) -> Node:
    """Parse a pattern. Raises ValueError, which names what is not supported."""
    parser = _Parser(pattern)
    try:
        return parser.whole()
    except RecursionError:
        raise ValueError("groups are nested too deeply") from None


class _Parser:
    """Recursive descent (ECMA-262, section 22.2.1). ``at``: the next character's index."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.at = 0

    def whole(self) -> Node:
        node = self.alternatives()
        if self.at < len(self.pattern):
            raise ValueError("a ) without a (")
        return node

    def alternatives(self) -> Node:
        options = [self.sequence()]
        while self.take("|"):
            options.append(self.sequence())
        return options[0] if len(options) == 1 else Either(tuple(options))

    def sequence(self) -> Node:
        parts = list[Node]()
        while self.at < len(self.pattern) and self.pattern[self.at] not in "|)":
            parts.append(self.quantify(self.atom()))
        return parts[0] if len(parts) == 1 else Concatenation(tuple(parts))

    def quantify(self, node: Node) -> Node:
        begin = self.at
        bounds = self.bounds()
        if bounds is None:
            return node
        if isinstance(node, Edge):
            raise ValueError(f"{self.pattern[begin : self.at]} repeats nothing")  # noqa: TRY004 - the pattern's fault
        least, most = bounds
        if most is not None and most < least:
            raise ValueError(f"{self.pattern[begin : self.at]} is out of order")
        lazy = self.take("?")
        if self.at < len(self.pattern) and self.pattern[self.at] in "*+?":
            raise ValueError(f"{self.pattern[begin : self.at + 1]} has a quantifier too many")
        return Repeat(node, least, most, lazy)

    def bounds(self) -> tuple[int, int | None] | None:
        for sign, bounds in (("*", (0, None)), ("+", (1, None)), ("?", (0, 1))):
            if self.take(sign):
                return bounds
        if not (found := _QUANTIFIER.match(self.pattern, self.at)):
            return None
        self.at = found.end()
        least = int(found[1])
        return least, int(found[3]) if found[3] else None if found[2] else least

    def atom(self) -> Node:
        sign = self.next()
        match sign:
            case "(":
                return self.group()
            case "[":
                return self.character_class()
            case ".":
                return ANY
            case "^" | "$":
                return Edge(sign)
            case "\\":
                return self.escape(inside=False)
            case "*" | "+" | "?":
                raise ValueError(f"{sign} repeats nothing")
            case _:
                return _one_character(ord(sign))

    def group(self) -> Node:
        for sign, name in _LOOKS.items():
            if self.pattern.startswith(sign, self.at):
                raise ValueError(f"({sign} is {name}, which is not supported")
        if self.take("?"):
            named = re.compile(r"P?<[A-Za-z_$][\w$]*>|:").match(self.pattern, self.at)
            if named is None:
                raise ValueError(f"(?{self.pattern[self.at : self.at + 1]} is not supported")
            self.at = named.end()
        node = self.alternatives()
        if not self.take(")"):
            raise ValueError("missing )")
        return node if isinstance(node, Set | Either) else Concatenation((node,))

    def character_class(self) -> Set:
        negated = self.take("^")
        ranges, properties = list[Range](), list[tuple[str, bool]]()
        while not self.take("]"):
            first = self.member()
            if self.pattern.startswith("-", self.at) and not self.pattern.startswith("-]", self.at):
                self.at += 1
                last = self.member()
                begin, end = _only_code_point(first), _only_code_point(last)
                if begin is None or end is None or begin > end:
                    raise ValueError("a range in [] is out of order")
                ranges.append((begin, end))
            else:
                ranges += complement(first.ranges) if first.negated else first.ranges
                properties += first.properties
        return Set(tuple(ranges), tuple(properties), negated)

    def member(self) -> Set:
        sign = self.next("missing ]")
        if sign != "\\":
            return _one_character(ord(sign))
        node = self.escape(inside=True)
        if not isinstance(node, Set):
            raise ValueError("an edge is in []")  # noqa: TRY004 - the pattern's fault
        return node

    def escape(self, *, inside: bool) -> Node:
        sign = self.next("a \\ ends it")
        if sign.lower() in _CLASSES:
            return Set(_CLASSES[sign.lower()], negated=sign.isupper())
        if sign in _CONTROLS:
            return _one_character(_CONTROLS[sign])
        match sign:
            case "b" if inside:
                return _one_character(0x08)
            case "b" | "B" if not inside:
                return Edge("b" if sign == "b" else "B")
            case "A" | "z" if not inside:
                return Edge("^" if sign == "A" else "$")
            case "p" | "P":
                return Set((), ((self.property(), sign == "P"),))
            case "u":
                return _one_character(self.unicode())
            case "x":
                return _one_character(self.hexadecimal(2, "\\x"))
            case "c":
                letter = self.next("\\c needs a letter")
                if not (letter.isascii() and letter.isalpha()):
                    raise ValueError("\\c needs a letter")
                return _one_character(ord(letter) % 32)
            case "0" if not self.pattern[self.at : self.at + 1].isdigit():
                return _one_character(0)
            case "k" | "1" | "2" | "3" | "4" | "5" | "6" | "7" | "8" | "9":
                raise ValueError(f"\\{sign} is a back-reference, which is not supported")
            case _ if sign.isalnum():
                raise ValueError(f"\\{sign} is not supported")
            case _:
                return _one_character(ord(sign))

    def property(self) -> str:
        if not self.take("{"):
            return self.next("\\p needs a name")
        end = self.pattern.find("}", self.at)
        found = _PROPERTY.fullmatch(self.pattern, self.at, end) if end >= 0 else None
        if found is None:
            raise ValueError("\\p{ is not supported with that name")
        self.at = end + 1
        return _LONG_NAMES.get(found[1], found[1])

    def unicode(self) -> int:
        if self.take("{"):
            end = self.pattern.find("}", self.at)
            digits = self.pattern[self.at : max(end, self.at)]
            self.at = end + 1
            if not re.fullmatch("[0-9A-Fa-f]{1,6}", digits) or int(digits, 16) > LAST:
                raise ValueError("\\u{ needs the number of a character")
            return int(digits, 16)
        high = self.hexadecimal(4, "\\u")
        if 0xD800 <= high <= 0xDBFF and self.pattern.startswith("\\u", self.at):
            begin = self.at
            self.at += 2
            low = self.hexadecimal(4, "\\u")
            if 0xDC00 <= low <= 0xDFFF:
                return 0x10000 + ((high - 0xD800) << 10) + low - 0xDC00
            self.at = begin
        return high

    def hexadecimal(self, count: int, name: str) -> int:
        digits = self.pattern[self.at : self.at + count]
        if not re.fullmatch(f"[0-9A-Fa-f]{{{count}}}", digits):
            raise ValueError(f"{name} needs {count} hexadecimal digits")
        self.at += count
        return int(digits, 16)

    def next(self, missing: str = "it ends too early") -> str:
        if self.at >= len(self.pattern):
            raise ValueError(missing)
        self.at += 1
        return self.pattern[self.at - 1]

    def take(self, sign: str) -> bool:
        if not self.pattern.startswith(sign, self.at):
            return False
        self.at += len(sign)
        return True


def _one_character(code: int) -> Set:
    return Set(((code, code),))


def _only_code_point(node: Set) -> int | None:
    alone = len(node.ranges) == 1 and node.ranges[0][0] == node.ranges[0][1] and not node.properties
    return node.ranges[0][0] if alone and not node.negated else None


def to_re2(node: Node) -> str:
    """Write the pattern in RE2's syntax, with the same meaning."""
    match node:
        case Set():
            return set_to_re2(node)
        case Edge(kind):
            return {"^": "^", "$": "$", "b": r"\b", "B": r"\B"}[kind]
        case Concatenation(parts):
            return "".join(f"(?:{to_re2(part)})" if _needs_group(part) else to_re2(part) for part in parts)
        case Either(options):
            return "|".join(map(to_re2, options))
        case Repeat(inner, least, most, lazy):
            body = to_re2(inner)
            if not isinstance(inner, Set):
                body = f"(?:{body})"
            return body + _quantifier(least, most) + ("?" if lazy else "")


def _needs_group(node: Node) -> bool:
    return isinstance(node, Either)


def _quantifier(least: int, most: int | None) -> str:
    short = {(0, None): "*", (1, None): "+", (0, 1): "?"}.get((least, most))
    return short or (f"{{{least}}}" if least == most else f"{{{least},{'' if most is None else most}}}")


def set_to_re2(node: Set) -> str:
    """Write a set of characters in RE2's syntax, always in brackets."""
    members = "".join(_range_to_re2(first, last) for first, last in node.ranges)
    members += "".join(f"\\{'P' if negated else 'p'}{{{name}}}" for name, negated in node.properties)
    if not members:
        return r"[\x{0}-\x{10FFFF}]" if node.negated else r"[^\x{0}-\x{10FFFF}]"
    return f"[{'^' if node.negated else ''}{members}]"


def _range_to_re2(first: int, last: int) -> str:
    return f"\\x{{{first:X}}}" if first == last else f"\\x{{{first:X}}}-\\x{{{last:X}}}"


def edges(nodes: Sequence[Node]) -> Iterator[Edge]:
    """All edges in the nodes."""
    for node in nodes:
        match node:
            case Edge():
                yield node
            case Concatenation(inner) | Either(inner):
                yield from edges(inner)
            case Repeat(single):
                yield from edges((single,))
            case Set():
                pass
