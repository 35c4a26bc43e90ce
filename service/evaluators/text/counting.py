"""Counts the words of a text, in every script. The classes of characters are Unicode's, the dictionaries ICU's."""

import re

import regex
from icu4py.breakers import WordBreaker

from service.evaluators.text.classes import Classes, pieces, signs

_CLASSES = Classes(
    regex.compile(r"""(?xV1)
    (?<variation>\ufe0f) | (?<keycap>\u20e3)
    | (?<mark>[\uff9e\uff9f])  # voices half-width kana
    | (?<alone>  # ideographs and kana, with marks such as 々, ー and ㈱
        [[\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\p{Yi}\p{Tangut}\p{Nushu}\p{Khitan_Small_Script}]--[\p{M}\p{P}]]
        | [[\p{scx=Han}\p{scx=Hira}\p{scx=Kana}]&&[\p{L}\p{N}\u3200-\u33ff]]
        # letters of scripts that have neither spaces nor a dictionary
        | [[\p{LB=AK}\p{LB=AS}\p{Tai_Le}\p{New_Tai_Lue}\p{Tai_Tham}\p{Tai_Viet}\p{Ahom}\p{Buginese}\p{Rejang}]&&\p{L}]
        | [[\p{Cuneiform}\p{Egyptian_Hieroglyphs}\p{Anatolian_Hieroglyphs}]&&[\p{L}\p{N}]])
    | (?<segmented>[[\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]&&[\p{L}\p{M}]])
    | (?<digit>\p{Nd}) | (?<letter>[[\p{L}\p{N}]--\p{DI}])
    | (?<thousand>[\xa0\u2009\u202f]) | (?<point>[．，：／・\u060c])
    | (?<divider>  # white space, also invisible or blank; dashes; marks between words of single scripts
        [\s\u200b\u2800\u3164\uffa0] | [\u2014\u2015\u2e3a\u2e3b\uff5e]
        | [\u0f0b\u0f0c\u1361\u16eb-\u16ed\U0001039f\U000103d0\U0001091f]
        | [\p{P}&&[\p{EA=W}\p{EA=F}\p{EA=H}]] | [\p{STerm}--\p{ASCII}] | \u061b)
    """),
    {
        "alone": "w",
        "segmented": "s",
        "letter": "l",
        "digit": "0",
        "thousand": "t",
        "point": ",",
        "divider": " ",
        "variation": "v",
        "keycap": "k",
        "mark": ".",
        None: ".",
    },
)
_RUN = re.compile(r"(?!0v?k)[l0](?:[l0.vk]|(?<=0),(?=0)|(?<=0)t(?=000))*+")
_SEGMENTED = re.compile("s++")
_LETTER = regex.compile(r"(?V1)[\p{L}--[ฯๆໆ]]")
"""A letter, and no mark of repetition or abbreviation."""
_LONGEST_SEGMENT = 16


def count_words(text: str) -> int:
    """Count words as readers of each script do, and as word processors do.

    - Chinese and Japanese: each character is a word, whether Han, kana, bopomofo or a mark such as 々 and ー. The same
      goes for letters of other scripts that have neither spaces nor a dictionary in ICU, such as Javanese and Yi.
    - Thai, Lao, Burmese and Khmer: ICU's dictionaries divide the text. Unknown text counts as a word for every 16
      characters.
    - Tibetan: each syllable is a word.
    - All other scripts: a word is a run without white space or em dashes that has a letter or a digit. "well-known",
      "don't", "l'homme", "кто-то", "3.14" and an address are one word each.

    >>> count_words("我用Python写了一个程序")
    9
    """
    classes = signs(text, _CLASSES.table(text))
    segmented = (text[run.start() : run.end()] for run in _SEGMENTED.finditer(classes))
    return classes.count("w") + sum(1 for _ in _RUN.finditer(classes)) + sum(map(_count_segments, segmented))


def _count_segments(run: str) -> int:
    """Count the words that ICU finds in a run of one of its scripts. Every locale has the same dictionaries."""
    segments = (segment for piece in pieces(run) for segment in WordBreaker(piece, "und"))
    return sum(-(-len(segment) // _LONGEST_SEGMENT) for segment in segments if _LETTER.search(segment))
