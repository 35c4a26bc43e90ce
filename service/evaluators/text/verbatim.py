"""The parts of a text that no repair may change: code and addresses."""

from collections.abc import Callable

import regex

_CODE = regex.compile(
    r"""(?xm)
    ^ [ \t>]*+ (?P<fence>`{3,}+|~{3,}+) [^\n]*+ (?: \n (?! [ \t>]*+ (?P=fence) [`~]*+ [ \t\r]*+ $ ) [^\n]*+ )*+
      (?: \n [^\n]*+ )?+
    | (?P<loose>`{3,}+) (?s: (?! (?P=loose) ) . )*+ (?: (?P=loose) `*+ | \Z )
    | (?P<span>`{1,2}+) (?: (?!`) [^\n] | (?! (?P=span) (?!`) ) `++ )*+ (?P=span)
    | ^ (?: [ ]{4} | \t ) [ \t]*+ (?! [-*+•–] [ \t] | \d{1,3} [.)] [ \t] | [ \t\n] ) [^\n]++
    """
)
"""A fenced block, up to its closing fence or the end of the text, even if it begins within a line; code within a line;
an indented line."""
_ADDRESS = regex.compile(r"\b(?:https?|ftp)://[^\s<>]++|\bwww\.[^\s<>]++|(?<![\w.+-])[\w.+-]++@[\w-]++(?:\.[\w-]++)+")
_VERBATIM = regex.compile(rf"{_CODE.pattern}|(?-x:{_ADDRESS.pattern})", regex.VERBOSE | regex.MULTILINE)


def has_code(text: str) -> bool:
    """Whether there is code in the text: a fenced block, code within a line, or an indented line."""
    return bool(code_spans(text))


def code_spans(text: str) -> list[tuple[int, int]]:
    """Where the code of a text begins and ends."""
    return [match.span() for match in _CODE.finditer(text)]


def change_prose(text: str, change: Callable[[str], str]) -> str:
    """The text with its prose changed. Code and addresses stay as they are.

    >>> change_prose("Call `f(X)` Now", str.lower)
    'call `f(X)` now'
    """
    pieces, start = [], 0
    for match in _VERBATIM.finditer(text):
        pieces += [change(text[start : match.start()]), match[0]]
        start = match.end()
    return "".join([*pieces, change(text[start:])])
