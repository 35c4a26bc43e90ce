"""How a text is read: its paragraphs and lines, and what makes two wordings the same."""

import re
from collections.abc import Sequence
from itertools import groupby
from unicodedata import category, normalize

import regex

QUOTATION_MARKS = "\"'“”„\u2018\u2019«»「」『』"
WRAPPING = f"{QUOTATION_MARKS}()[]{{}}*_"
"""Characters that may stand around a word or a sentence."""

_VISIBLE = regex.compile(r"[^\s\p{DI}\u2800]")
_RULED = "-*_=—–―─━═＊＿－＝※☆★◆◇■□●○•·・"
_RULE = regex.compile(rf"\s*+([{_RULED}])(?:\s*+\1){{2,}}+\s*+")


def paragraphs(text: str, separator: str = "") -> Sequence[str]:
    """The blocks between lines that hold the separator and nothing else.

    By default those are blank lines, and lines that hold a horizontal rule such as "---", "* * *" or "———". A block of
    nothing but such lines is no paragraph, whatever the separator.
    """
    wanted = separator.strip()
    blocks = groupby(text.splitlines(), key=lambda line: line.strip() == wanted if wanted else not _has_content(line))
    return ["\n".join(block) for divides, lines in blocks if not divides and any(map(_has_content, block := [*lines]))]


def count_lines(text: str) -> int:
    """Lines that are not blank. One with nothing but white space and invisible characters is."""
    return sum(map(_is_visible, text.splitlines()))


def _has_content(line: str) -> bool:
    bare = line.strip()
    if len(bare) < 3 and bare.isascii():
        return bool(bare)
    return _is_visible(bare) and not _RULE.fullmatch(bare)


def _is_visible(line: str) -> bool:
    return _VISIBLE.search(line) is not None


def unquoted(text: str) -> str:
    """Without the double quotation marks around all of it: straight ones, or a pair of typographic ones."""
    return text[1:-1] if len(text) > 2 and text[0] + text[-1] in _QUOTATIONS else text


_QUOTATIONS = ('""', "“”", "„“", "„”", "””", "«»", "»«", "「」", "『』")


def excerpt(text: str, limit: int = 60) -> str:
    """``text``, or its two ends where it has more than ``limit`` characters, which is even."""
    return text if len(text) <= limit else f"{text[: limit // 2]}…{text[1 - limit // 2 :]}"


def normalised(text: str) -> str:
    """The same for all ways to write an accented character, an apostrophe or a hyphen."""
    return normalize("NFC", _stream_safe(text.translate(_AS_TYPED)))


def lowered(text: str) -> str:
    """Normalised, in lower case letter by letter: case folding would make two letters of "ß"."""
    return normalised(text.lower().replace("ς", "\u03c3"))


def folded(text: str, case_sensitive: bool = False) -> str:
    """Normalised, and the same for any white space, and for either case (by Unicode case folding) unless that
    matters."""
    return " ".join(normalised(text if case_sensitive else text.casefold()).split())


_AS_TYPED = str.maketrans({"\u2019": "'", "\u2010": "-", "\u2011": "-"})
_MAX_MARKS = 30


def _stream_safe(text: str) -> str:
    """At most 30 combining marks in a row, as in Unicode's stream-safe format (UAX #15): more belong to no language,
    and Python's normalisation takes time quadratic in their number. (The combining class will not do to tell them: that
    of U+0F73 is 0, yet it is normalised to two marks.)"""
    if text.isascii():
        return text
    kept, marks = [], 0
    for character in text:
        marks = marks + 1 if category(character)[0] == "M" else 0
        if marks <= _MAX_MARKS:
            kept.append(character)
    return "".join(kept)


_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u30ff\u31f0-\u31ff\u3400-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
"""Scripts that are written without spaces: the second line is Chinese and Japanese."""
_MARKS = "".join(
    character
    for character in map(chr, range(0x300, 0x1F000))
    if category(character) in ("Mn", "Mc") and not "\ufe00" <= character <= "\ufe0f"  # which vary emoji
)
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]++(?:[{_MARKS}]++[^\W_{_UNSPACED}]*+)*+")


def marked(text: str, case_sensitive: bool = False) -> str:
    """Folded, with a NUL at both ends of every word: whole words can then be found as plain strings.

    Letters and digits make a word, with the marks on them. In a script without spaces each character counts as one, so
    that a word of such a script is found in the middle of a sentence, and also inside a longer word.
    """
    return _WORD.sub("\0\\g<0>\0", folded(text, case_sensitive).replace("\0", "\ufffd"))
