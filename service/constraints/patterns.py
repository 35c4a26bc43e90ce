"""Callers' patterns, as regular expressions of whole texts.

llguidance matches from the first character to the last, and knows no edges. So what may come before and after a match
is written out, and an edge becomes a demand on the character next to it. An edge that cannot be written in this way
makes the pattern one that is only checked.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from service.expressions import (
    ANY,
    WORD,
    Concatenation,
    Edge,
    Either,
    Node,
    Repeat,
    Set,
    complement,
    edges,
    parse,
    to_re2,
)

FOLDED = "\u017f\u212a"
"""The long s and the Kelvin sign, which are an s and a k where case does not matter, but no word characters of RE2."""
MOST_OPTIONS = 16

_FLAGS = re.compile(r"\(\?([ims]+)\)")
_READ_OTHERWISE = ("[]", "[^]", "[:")
"""What RE2 and this reader take for different sets."""
_ENDS_OF_TEXT = ("\\A", "\\z")
_ANYTHING, _LETTER, _NO_LETTER = "(?s:.*)", "[0-9A-Za-z_]", "[^0-9A-Za-z_]"
_EVERY_CHARACTER = Set((), negated=True)
_NO_NEWLINE = Set(((0x0A, 0x0A),), negated=True)


@dataclass(frozen=True, slots=True)
class _Flags:
    any_case: bool
    lines: bool
    dot_takes_all: bool


def all_texts_with(pattern: str) -> str:
    r"""All texts in which a pattern of RE2 matches somewhere. Raises ValueError, with a clause that says why not.

    Texts have to be without FOLDED, and without white space but spaces and line feeds.

    >>> all_texts_with("^[0-9]$")
    '(?:(?:[\\x{30}-\\x{39}]))'
    """
    found = _FLAGS.match(pattern)
    letters, pattern = (found[1], pattern[found.end() :]) if found else ("", pattern)
    flags = _Flags("i" in letters, "m" in letters, "s" in letters)
    if any(sign in pattern for sign in _READ_OTHERWISE) or (flags.lines and any(s in pattern for s in _ENDS_OF_TEXT)):
        raise ValueError("the pattern is written in a way that is only checked")
    try:
        node = parse(pattern)
    except ValueError:
        raise ValueError("the pattern is written in a way that is only checked") from None
    options = [_write(option, flags) for option in _options(node)]
    return f"(?:{'|'.join(options)})"


def _options(node: Node) -> Iterator[Sequence[Node]]:
    """The alternatives of a pattern, each a sequence. Groups with edges are taken apart wherever they are."""
    match node:
        case Either(options):
            for option in options:
                yield from _options(option)
        case Concatenation(parts):
            choices = [list(_options(part)) if _is_open(part) else [(part,)] for part in parts]
            count = 1
            for each in choices:
                count *= len(each)
            if count > MOST_OPTIONS:
                raise ValueError("the pattern has too many alternatives with edges")
            for chosen in product(*choices):
                yield [part for sequence in chosen for part in sequence]
        case _:
            yield [node]


def _is_open(node: Node) -> bool:
    return isinstance(node, Concatenation | Either) and any(edges([node]))


def _write(parts: Sequence[Node], flags: _Flags) -> str:
    """One alternative, with what may come before and after it."""
    inner = list(parts)
    before, after = list[str](), list[str]()
    while inner and isinstance(inner[0], Edge):
        before.append(inner.pop(0).kind)  # type: ignore[union-attr]
    while inner and isinstance(inner[-1], Edge):
        after.append(inner.pop().kind)  # type: ignore[union-attr]
    if any(edges(inner)):
        raise ValueError("the pattern has an edge inside")
    core = "".join(f"(?:{to_re2(_fit(part, flags))})" for part in inner)
    core = f"(?i:{core})" if flags.any_case else core
    return _before(before, inner, flags) + core + _after(after, inner, flags)


def _before(kinds: Sequence[str], inner: Sequence[Node], flags: _Flags) -> str:
    """What may come before a match."""
    if {"$", "B"} & set(kinds):
        raise ValueError("the pattern has an edge inside")
    begins_word = _is_letter(inner[0]) if "b" in kinds and inner else None
    if "b" in kinds and (begins_word is None or ("^" in kinds and not begins_word)):
        raise ValueError("the pattern has the edge of a word where one is not certain")
    if "^" in kinds:
        return f"(?:{_ANYTHING}\\n)?" if flags.lines else ""
    if "b" in kinds:
        return f"(?:{_ANYTHING}{_NO_LETTER})?" if begins_word else f"{_ANYTHING}{_LETTER}"
    return _ANYTHING


def _after(kinds: Sequence[str], inner: Sequence[Node], flags: _Flags) -> str:
    """What may come after a match."""
    if {"^", "B"} & set(kinds):
        raise ValueError("the pattern has an edge inside")
    ends_word = _is_letter(inner[-1]) if "b" in kinds and inner else None
    if "b" in kinds and (ends_word is None or ("$" in kinds and not ends_word)):
        raise ValueError("the pattern has the edge of a word where one is not certain")
    if "$" in kinds:
        return f"(?:\\n{_ANYTHING})?" if flags.lines else ""
    if "b" in kinds:
        return f"(?:{_NO_LETTER}{_ANYTHING})?" if ends_word else f"{_LETTER}{_ANYTHING}"
    return _ANYTHING


def _is_letter(node: Node) -> bool | None:
    """Whether what a node matches begins and ends with a character of words; None where it may or may not."""
    match node:
        case Set(ranges, (), negated):
            wanted = complement(ranges) if negated else ranges
            inside = [any(low <= first and last <= high for low, high in WORD) for first, last in wanted]
            outside = [all(last < low or high < first for low, high in WORD) for first, last in wanted]
            return True if all(inside) else False if all(outside) else None
        case Repeat(single, least) if least > 0:
            return _is_letter(single)
        case Concatenation(parts) | Either(parts):
            found = {_is_letter(part) for part in parts}
            return found.pop() if len(found) == 1 else None
        case _:
            return None


def _fit(node: Node, flags: _Flags) -> Node:
    """The node with the dot of RE2, and without the marks of laziness, which change no set of texts."""
    match node:
        case Set():
            return (_EVERY_CHARACTER if flags.dot_takes_all else _NO_NEWLINE) if node == ANY else node
        case Concatenation(parts):
            return Concatenation(tuple(_fit(part, flags) for part in parts))
        case Either(options):
            return Either(tuple(_fit(option, flags) for option in options))
        case Repeat(single, least, most):
            return Repeat(_fit(single, flags), least, most)
        case Edge():
            return node
