"""Normal forms of a text, in which two wordings are equal even if they differ in the width of characters, in optional
marks, in case, in white space, or in the marks around the text."""

from collections.abc import Callable, Mapping, Sequence
from unicodedata import decomposition, normalize

import regex

from service.evaluators.text.classes import translate

BRACKET_PAIRS = ("()", "[]", "{}", "<>", "【】", "〔〕", "〖〗", "〘〙", "〚〛", "〈〉", "《》", "⟨⟩", "⟪⟫", "‹›")
QUOTATION_MARKS = "\"'“”„‟‘’‚‛«»「」『』〝〞〟﹁﹂﹃﹄❝❞❛❜"
MARKUP = "*_~`"
AROUND_TEXT = f"{QUOTATION_MARKS}{''.join(BRACKET_PAIRS)}{MARKUP} "
"""Marks that may surround a normalised text without being part of its wording."""
ENDING_STOPS = ".!。।॥۔։՜።។៕။།᠃᠉߹‼❗❕꓿"
"""The full stops and exclamation marks of all scripts, normalised."""

_INVISIBLE = regex.compile(r"\p{Default_Ignorable_Code_Point}++")
_STRAIGHT = str.maketrans("＂״", '""')
_DOUBLE_QUOTATIONS = (
    *('""', "“”", "„“", "„”", "„‟", "‟”", "””", "”“", "«»", "»«", "»»"),
    *("「」", "『』", "〝〞", "〝〟", "﹁﹂", "﹃﹄", "❝❞"),
)


def strip_quotes(text: str) -> str:
    """Remove double quotation marks around the whole text: straight ones, or a pair of typographic ones."""
    quotation = (text[0] + text[-1]).translate(_STRAIGHT) if len(text) > 2 else ""
    return text[1:-1] if quotation in _DOUBLE_QUOTATIONS else text


def may_open_quotation(character: str) -> bool:
    """Whether double quotation marks around a text may begin with this one."""
    return character.translate(_STRAIGHT) in {pair[0] for pair in _DOUBLE_QUOTATIONS}


def strip_invisible(text: str) -> str:
    """Remove joiners, direction marks, soft hyphens and other invisible characters."""
    return text if text.isascii() else _INVISIBLE.sub("", text)


def unify_width(text: str) -> str:
    """Write accented characters, apostrophes and hyphens in one way, and full-width, half-width and positional forms as
    plain characters: "ＹＥＳ" becomes "YES"."""
    return text if text.isascii() else normalize("NFC", _limit_marks(translate(text, _PLAIN_FORMS)))


def normalise(text: str) -> str:
    """Do what ``unify_width`` does, and remove whatever readers do not see or fill in themselves.

    Removed are the vowel signs of Arabic and Hebrew, the stretching of Arabic letters, joiners, soft hyphens and other
    invisible characters, and the dots of "ё". The Arabic yeh and kaf become the Persian ones, and the vowel am of Thai
    and Lao becomes one character.
    """
    if text.isascii():
        return text
    plain = translate(unify_width(translate(text, _AS_READ)), _UNDOTTED)
    return _AM.sub(_join, plain)


def lower(text: str) -> str:
    """Unify the width, and lower the case letter by letter: case folding would make two letters of "ß"."""
    return unify_width(text.lower().replace("ς", "σ"))


def fold(text: str, case_sensitive: bool = False, turkic: bool = False) -> str:
    """Normalise a text, unify its white space, and fold its case as Unicode does, unless ``case_sensitive``.

    ``turkic``: "I" is the capital of "ı", and "İ" that of "i".

    >>> fold("Straße  “ＡＢＣ”")
    'strasse “abc”'
    """
    if turkic:
        text = translate(text, _TURKIC)
    return _collapse_spaces(normalise(text if case_sensitive else text.casefold()))


def _collapse_spaces(text: str) -> str:
    """One space for each run of white space, and none at the ends. ``str.split`` would keep every word in memory."""
    for character in _WHITE_SPACE:
        text = text.replace(character, " ")
    while "  " in text:
        text = text.replace("  ", " ")
    return text.strip(" ")


def case_foldings(case_sensitive: bool, *texts: str) -> Sequence[bool]:
    """The values of ``turkic`` with which to compare texts: both if a text has letters that only Turkic languages use,
    because only the language tells which lower-case letter an "I" stands for."""
    return (False, True) if not case_sensitive and any("ı" in text or "İ" in text for text in texts) else (False,)


_AM = regex.compile("[\u0e4d\u0ecd]([\u0e48-\u0e4b\u0ec8-\u0ecb]?)([\u0e32\u0eb2])")


def _join(am: "regex.Match[str]") -> str:
    return am[1] + chr(ord(am[2]) + 1)


_WHITE_SPACE = "".join(character for character in map(chr, range(0x3001)) if character.isspace() and character != " ")
_TURKIC = str.maketrans({"I": "ı", "İ": "i"})
_UNDOTTED = str.maketrans({"ё": "е", "Ё": "Е"})
_PERSIAN = str.maketrans({"ي": "ی", "ك": "ک"})
_AS_TYPED = str.maketrans({"’": "'", "ʼ": "'", "׳": "'", "״": '"', "\u2010": "-", "\u2011": "-"})
_OTHER_FORMS = ("<wide>", "<narrow>", "<small>", "<vertical>", "<initial>", "<medial>", "<final>", "<isolated>")
_MAX_FORM = 4
"""Letters into which a character is decomposed, at most: a few characters stand for whole phrases."""
_OPTIONAL = regex.compile(
    r"[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7"  # the points of Hebrew
    r"\u0610-\u061a\u0640\u064b-\u0652\u0656-\u065f\u0670\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed"  # Arabic
    r"[\p{Default_Ignorable_Code_Point}--[\u1160\u3164\uffa0]]]",  # the last three are letters of Korean
    regex.VERSION1,
)


def _plain_form(character: str) -> str:
    """The plain characters for one of another width or position; the character itself if it is plain."""
    kind, *points = decomposition(character).split() or [""]
    if kind not in _OTHER_FORMS or len(points) > _MAX_FORM:
        return character
    return "".join(chr(int(point, 16)) for point in points)


def _read_form(character: str) -> str:
    """The plain form without optional marks. Hebrew letters with points are decomposed, because they are single
    characters."""
    form = normalize("NFD", character) if "\ufb1d" <= character <= "\ufb4f" else _plain_form(character)
    return _OPTIONAL.sub("", form.translate(_AS_TYPED)).translate(_PERSIAN)


def _make_table(form: Callable[[str], str]) -> Mapping[int, str]:
    """The characters that ``form`` changes, with what it makes of them."""
    special = map(chr, (*range(0x80, 0x3001), *range(0xFB1D, 0x10000), *range(0xE0000, 0xE1000)))
    return {ord(character): form(character) for character in special if form(character) != character}


_PLAIN_FORMS: Mapping[int, str] = {**_make_table(_plain_form), **_AS_TYPED}
_AS_READ = _make_table(_read_form)
_TOO_MANY_MARKS = regex.compile(r"(\p{M}{30})\p{M}++")


def _limit_marks(text: str) -> str:
    """Keep at most 30 combining marks in a row, as in Unicode's stream-safe format (UAX #15). No language needs more,
    and Python's normalisation takes time quadratic in their number. (The combining class does not identify them: that
    of U+0F73 is 0, yet it is normalised to two marks.)"""
    return _TOO_MANY_MARKS.sub(r"\1", text)
