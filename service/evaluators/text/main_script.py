"""Which script a text is mostly in."""

from collections import Counter
from functools import lru_cache

import regex

_LETTERS_OF_WORD = 3
"""Letters of an alphabet that weigh as much as a character of Chinese, kana or Hangul."""
_MOSTLY = 1.5
_SCRIPTS = (
    r"\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Bopomofo}ー",
    *(r"\p{Latin}", r"\p{Cyrillic}", r"\p{Greek}", r"\p{Arabic}", r"\p{Hebrew}", r"\p{Thai}", r"\p{Devanagari}"),
)
_IN_SCRIPT = [regex.compile(rf"[[{script}]&&\p{{L}}]", regex.VERSION1) for script in _SCRIPTS]
_OUTSIDE_SCRIPT = [regex.compile(rf"(?:[\p{{L}}--[{script}]]\p{{M}}*+)++", regex.VERSION1) for script in _SCRIPTS]


def keep_main_script(text: str) -> str:
    """If the text is mostly in one script, remove the letters of others: foreign names do not show its language."""
    extents = [0.0] * (len(_SCRIPTS) + 1)
    for character, count in Counter(text).items():
        if character.isalpha():
            extents[_script_index(character)] += count
    extents[0] *= _LETTERS_OF_WORD
    main = max(range(len(_SCRIPTS)), key=lambda at: extents[at])
    return _OUTSIDE_SCRIPT[main].sub(" ", text) if extents[main] > _MOSTLY * (sum(extents) - extents[main]) else text


@lru_cache(4096)
def _script_index(letter: str) -> int:
    """The letter's index in ``_SCRIPTS``; the number of scripts for any other."""
    return next((at for at, pattern in enumerate(_IN_SCRIPT) if pattern.match(letter)), len(_SCRIPTS))
