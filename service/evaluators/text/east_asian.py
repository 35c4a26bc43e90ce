"""Whether a text is in Chinese, Japanese or Korean, by its characters.

The three share Han characters, and a detector of n-grams needs many of them to tell the languages apart. But only
Japanese has kana, only Korean has Hangul, and each country writes some Han characters in its own way. The old standards
of character sets show which ones.
"""

import re
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache

_PAIRS = ("「」", "『』", "《》", "〈〉", "“”", "‘’", "()", "（）", '""')
_QUOTED = re.compile("|".join(f"{re.escape(pair[0])}[^{re.escape(pair)}]*{re.escape(pair[1])}" for pair in _PAIRS))
_KANA = re.compile("[\u3041-\u3096\u30a1-\u30fa\u31f0-\u31ff\uff66-\uff6f\uff71-\uff9d]")
_HANGUL = re.compile("[\uac00-\ud7af\u1100-\u11ff\u3131-\u318e]")
_HAN = re.compile("[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff々〆]")
_CHINESE_WORDS = "們這嗎麼你妳您呢吧啊她它很沒哪怎甚"
"""Characters of everyday Chinese that are in the standards of Japanese and Korean, but hardly used there."""

_KANA_PER_CHARACTER = 0.5
_HANGUL_PER_CHARACTER = 0.7
_CHINESE_PER_CHARACTER = 0.3
"""The rough share of an ordinary text in which each language has characters of its own."""


def east_asian_language(text: str) -> str | None:
    """One of "zh", "ja" or "ko"; None if the characters do not decide. Quotations count only if all the text is quoted.

    >>> east_asian_language("東京都千代田区")
    'ja'
    """
    outside = _QUOTED.sub(" ", text)
    return _identify(outside) or (_identify(text) if outside != text else None)


def _identify(text: str) -> str | None:
    characters = Counter(_HAN.findall(text))
    extents: Mapping[str, float] = {
        "ja": len(_KANA.findall(text)) / _KANA_PER_CHARACTER,
        "ko": len(_HANGUL.findall(text)) / _HANGUL_PER_CHARACTER,
        "zh": sum(count for each, count in characters.items() if _is_only_chinese(each)) / _CHINESE_PER_CHARACTER,
    }
    likeliest = max(extents, key=lambda code: extents[code])
    if extents[likeliest]:
        return likeliest
    return "ja" if characters and _is_in_no_chinese_standard("".join(characters)) else None


@lru_cache(4096)
def _is_only_chinese(character: str) -> bool:
    return character in _CHINESE_WORDS or not (_is_in("shift_jis", character) or _is_in("euc_kr", character))


def _is_in_no_chinese_standard(han: str) -> bool:
    """Whether only Japanese mixes these characters: of 東京都千代田区, 東 is traditional and 区 simplified, and a
    Chinese text has one kind."""
    return _is_in("shift_jis", han) and not _is_in("gb2312", han) and not _is_in("big5", han)


def _is_in(encoding: str, characters: str) -> bool:
    try:
        characters.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True
