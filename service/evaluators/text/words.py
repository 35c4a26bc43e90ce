"""How a text is read: its words, sentences, paragraphs and lines, and what makes two wordings the same."""

import re
from collections.abc import Sequence
from itertools import groupby
from unicodedata import category, normalize

QUOTATION_MARKS = "\"'“”„\u2018\u2019«»「」『』"
WRAPPING = f"{QUOTATION_MARKS}()[]{{}}*_"
"""Characters that may stand around a word or a sentence."""

_STOPS = (*".!?…。\uff01\uff1f", "\u061f", "\u06d4", "\u0964", "\u0965")  # the last four: Arabic, Urdu, Hindi
_IDEOGRAPHIC_STOP = re.compile("([。\uff01\uff1f])")
_ABBREVIATION = re.compile(r"(?:[^\W\d_]\.)+|(?:Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|vs|No|Fig)\.")
_NUMBERING = re.compile(r"\d+\.")


def count_words(text: str) -> int:
    """Runs between white space or em dashes that hold a letter or a digit: "well-known" and "don't" are one word each.

    A run of a script that is written without spaces is one word too; ``characters`` is the unit for those.
    """
    return sum(any(map(str.isalnum, run)) for run in text.replace("—", " ").split())


def count_sentences(text: str) -> int:
    """Pieces with a letter or a digit that end at a stop before white space, or where a paragraph ends.

    A stop ends nothing before a word in lower case ("e.g. this"), after a single letter ("J. K. Rowling", "U.S.") or a
    common title ("Dr."), or after the number of a list item. So a list without stops is one sentence, and
    "It was I. He left." too.
    """
    count = 0
    for paragraph in paragraphs(text):
        words = _IDEOGRAPHIC_STOP.sub(r"\1 ", paragraph).split()
        begun = False
        for word, following in zip(words, [*words[1:], ""], strict=True):
            core = word.strip(WRAPPING)
            if not begun and following and _NUMBERING.fullmatch(core):
                continue
            begun = begun or any(map(str.isalnum, core))
            closed = core.endswith(_STOPS) and not _ABBREVIATION.fullmatch(core)
            if begun and (not following or (closed and not following.lstrip(WRAPPING)[:1].islower())):
                count, begun = count + 1, False
    return count


def paragraphs(text: str, separator: str = "") -> Sequence[str]:
    """The blocks between lines that hold the separator and nothing else, by default blank lines."""
    blocks = groupby(text.splitlines(), key=lambda line: line.strip() != separator.strip())
    joined = ("\n".join(lines) for inside, lines in blocks if inside)
    return [block for block in joined if block.strip()]


def count_lines(text: str) -> int:
    """Lines that are not blank."""
    return sum(bool(line.strip()) for line in text.splitlines())


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
