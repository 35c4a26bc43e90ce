"""Texts as signs for the classes of their characters.

Sets of Unicode's properties are slow to match, so a text is not searched for them. Each of its different characters is
classified once, and then the text's signs are searched, which correspond to its characters one to one.
"""

from collections.abc import Iterator, Mapping

import regex

AT_ONCE = 10_000
"""Characters that a call into C, which holds the interpreter's lock, is soon done with."""


class Classes:
    """Classes of characters: each is a named group of ``pattern``, and ``signs`` has a sign for it, and for None."""

    def __init__(self, pattern: "regex.Pattern[str]", signs: Mapping[str | None, str]) -> None:
        self._pattern = pattern
        self._signs = signs

    def table(self, text: str) -> Mapping[int, str]:
        """The signs of all characters in the text."""
        return {ord(character): self._sign(character) for character in set(text)}

    def _sign(self, character: str) -> str:
        match = self._pattern.match(character)
        return self._signs[match.lastgroup if match else None]


def signs(text: str, table: Mapping[int, str]) -> str:
    """The signs of a text by the table of its characters."""
    return translate(text, table)


def translate(text: str, table: Mapping[int, str | int]) -> str:
    """As ``text.translate(table)``, in calls into C that are short."""
    return "".join(piece.translate(table) for piece in pieces(text))


def pieces(text: str) -> Iterator[str]:
    return (text[start : start + AT_ONCE] for start in range(0, len(text), AT_ONCE))
