"""Texts as strings of signs, one for the class of each character.

Sets of Unicode properties are slow to match. So each distinct character of a text is classified once, and patterns
search the signs, which correspond to the characters one to one.
"""

from collections.abc import Iterator, Mapping

import regex

AT_ONCE = 10_000
"""Characters that one call into C handles quickly. It holds the interpreter's lock."""


class Classes:
    """Classes of characters. Each is a named group of ``pattern``; ``signs`` maps its name, and None, to a sign."""

    def __init__(self, pattern: "regex.Pattern[str]", signs: Mapping[str | None, str]) -> None:
        self._pattern = pattern
        self._signs = signs

    def table(self, text: str) -> Mapping[int, str]:
        """The sign of each character in the text."""
        return {ord(character): self._sign(character) for character in set(text)}

    def _sign(self, character: str) -> str:
        match = self._pattern.match(character)
        return self._signs[match.lastgroup if match else None]


def signs(text: str, table: Mapping[int, str]) -> str:
    """The signs of a text. ``table``: of its characters, from ``Classes.table``."""
    return translate(text, table)


def translate(text: str, table: Mapping[int, str | int]) -> str:
    """The same as ``text.translate(table)``, in short calls into C."""
    return "".join(piece.translate(table) for piece in pieces(text))


def pieces(text: str) -> Iterator[str]:
    return (text[start : start + AT_ONCE] for start in range(0, len(text), AT_ONCE))
