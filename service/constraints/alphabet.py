r"""The characters of words, as sets that Rust's regular expressions and Python's ``regex`` (V1) both read.

``STRICT`` has the letters of scripts with spaces whose words all verifiers count and compare in the same way. Left out
are letters that case folding lengthens or makes into others (ß, ŉ, the Kelvin sign), ligatures, and combining marks
that may be written in another way. ``LOOSE`` has everything but white space, control characters and invisible ones.
"""

from collections.abc import Iterable

import regex

_LATIN = (
    r"A-Za-z\u00c0-\u00d6\u00d8-\u00de\u00e0-\u00f6\u00f8-\u0148\u014a-\u017e\u0180-\u01c3\u01cd-\u01ef\u01f4-\u02af"
)
_VIETNAMESE = r"\u1ea0-\u1ef9"
_GREEK = r"\u0386\u0388-\u038f\u0391-\u03a1\u03a3-\u03af\u03b1-\u03ce"
_CYRILLIC = r"\u0400-\u0481\u048a-\u052f"
_OTHERS = (
    r"\u0531-\u0556\u0561-\u0586\u05d0-\u05ea\u0621-\u063a\u0641-\u064a\u0671-\u06d3\u06d5"
    r"\u0904-\u0939\u0985-\u09b9\u0a05-\u0a32\u0a35\u0a38\u0a39\u0a85-\u0ab9\u0b05-\u0b39\u0b85-\u0bb9\u0c05-\u0c39\u0c85-\u0cb9"
    r"\u0d05-\u0d39\u10d0-\u10fa\u1200-\u135a\uac00-\ud7a3"
)
LETTERS = rf"[[{_LATIN}{_VIETNAMESE}{_GREEK}{_CYRILLIC}{_OTHERS}]&&\p{{L}}]"
"""Of scripts with spaces."""
MARKS = r"[[\u0900-\u0d63]&&\p{M}]"
"""Vowel signs of Indian scripts."""
DIGITS = r"[0-9\u0660-\u0669\u06f0-\u06f9\u0966-\u096f]"
SCRIPTS = (
    r"[\u05d0-\u05ea\u0621-\u063a\u0641-\u064a\u0671-\u06d3\u06d5]",
    r"[\uac00-\ud7a3]",
    r"[^\u0590-\u06ff\uac00-\ud7a3]",
)
"""Letters of a word that is compared are all from one of these: where they meet, verifiers see the end of a word."""
IN_WORDS = rf"[{LETTERS}{MARKS}{DIGITS}]&&{SCRIPTS[2]}"
"""The inside of a set: what goes on a word in a script that is written from left to right, Hangul left out."""
PLAIN = (
    rf"[{LETTERS}{MARKS}{DIGITS}!-~“”‘’„«»‹›–—…•·°€£§¿¡×→✓\u3001-\u3011\u3041-\u3096\u30a1-\u30fc"
    r"\u4e00-\u9fff\uff01\uff08\uff09\uff0c\uff1a\uff1b\uff1f\U0001f300-\U0001faff]"
)
"""What texts have whose words are compared, but not read one by one: no letters that are others in disguise."""
CAPITALS = rf"[{LETTERS}&&\p{{Lu}}]"
CASELESS = rf"[{LETTERS}&&[\p{{Lo}}]]"

_HIDDEN = (
    r"\s\p{Cc}\p{Cf}\p{Co}\p{Cn}\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u2800\u3164"
    r"\ufe00-\ufe0f\uffa0\ufff0-\uffff\U000e0000-\U000e0fff"
)
LOOSE = rf"[^{_HIDDEN}]"
LINE = rf"[{LOOSE}\u0020]"
"""Everything on a line."""

WITH_CAPITALS = r"\p{Lu}\p{Lt}\u2160-\u216f\u24b6-\u24cf"
WITH_SMALLS = r"\p{Ll}\p{Lt}\u0345\u2170-\u217f\u24d0-\u24e9"
"""Every character that has a counterpart in the other case, and some more."""


def only(base: str, *removed: str) -> str:
    """A set without the members of others, each written as the inside of brackets."""
    for members in filter(None, removed):
        base = f"[{base}--[{members}]]"
    return base


def members(characters: Iterable[str]) -> str:
    """Single characters, written as the inside of brackets."""
    return "".join(f"\\U{ord(character):08x}" for character in characters)


def literal(text: str) -> str:
    """A text, written as a regular expression."""
    return "".join(
        character if character.isascii() and character.isalnum() else f"\\U{ord(character):08x}" for character in text
    )


def matches(pattern: str, text: str) -> bool:
    """Whether the whole text matches a pattern of this module."""
    return regex.compile(f"(?V1){pattern}").fullmatch(text) is not None
