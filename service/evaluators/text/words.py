"""The paragraphs and lines of a text."""

from collections.abc import Sequence
from itertools import groupby

import regex

from service.evaluators.text.fences import are_fenced

_VISIBLE = regex.compile(r"[^\s\p{DI}\u2800]")
_RULED = "-*_=—–―─━═＊＿－＝※☆★◆◇■□●○•·・"
_RULE = regex.compile(rf"\s*+([{_RULED}])(?:\s*+\1){{2,}}+\s*+")


def paragraphs(text: str, separator: str = "") -> Sequence[str]:
    """The blocks between lines that hold the separator and nothing else.

    By default paragraphs are separated by blank lines, also in a quotation (">"), and by horizontal rules such as
    "---", "* * *" or "———". A block of nothing but such lines does not count, whatever the separator. A fenced block of
    code is never divided.

    >>> paragraphs("One.\\n\\nTwo.\\n---\\nThree.")
    ['One.', 'Two.', 'Three.']
    """
    wanted, lines = separator.strip(), text.splitlines()
    fenced = iter(are_fenced(lines))
    blocks = groupby(lines, key=lambda line: not next(fenced) and _is_divider(line, wanted))
    return ["\n".join(block) for divides, rows in blocks if not divides and any(map(_has_content, block := [*rows]))]


def prose_lines(text: str) -> Sequence[str]:
    """The lines outside fenced blocks of code."""
    lines = text.splitlines()
    return [line for line, fenced in zip(lines, are_fenced(lines), strict=True) if not fenced]


def count_lines(text: str) -> int:
    """The number of lines that are not blank. White space and invisible characters alone are blank."""
    return sum(map(_is_visible, text.splitlines()))


def whole_lines(beginning: str) -> str:
    """The lines that a text which begins like this is certain to have. If there is a fence there are none, because what
    it encloses is still open."""
    return "" if "```" in beginning or "~~~" in beginning else beginning[: beginning.rfind("\n") + 1]


def is_rule(line: str) -> bool:
    """Whether the line is a horizontal rule, such as "---", "* * *" or "———"."""
    return _RULE.fullmatch(line) is not None


def _is_divider(line: str, wanted: str) -> bool:
    return line.strip() == wanted if wanted else not _has_content(line)


def _has_content(line: str) -> bool:
    bare = line.strip()
    if bare.startswith(">") and not bare.strip("> \t"):
        return False
    if len(bare) < 3 and bare.isascii():
        return bool(bare)
    return _is_visible(bare) and not is_rule(bare)


def _is_visible(line: str) -> bool:
    return _VISIBLE.search(line) is not None


def excerpt(text: str, limit: int = 60) -> str:
    """``text``, or its two ends if it has more than ``limit`` characters. ``limit`` is even."""
    return text if len(text) <= limit else f"{text[: limit // 2]}…{text[1 - limit // 2 :]}"
