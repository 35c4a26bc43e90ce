"""Phrases found in a text as whole words, in every script."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property

import regex

from service.evaluators.text.particles import bare_nouns
from service.evaluators.text.wording import fold

_UNSPACED = (
    r"[[\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\p{Yi}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}"
    r"\p{Tai_Le}\p{New_Tai_Lue}\p{Tai_Tham}\p{Javanese}\p{Balinese}ー]&&[\p{L}\p{M}\p{Nl}]]"
)
_HANGUL = r"[\p{Hangul}&&\p{L}]"
_RIGHT_TO_LEFT = r"[[\p{Arabic}\p{Hebrew}\p{Syriac}\p{Thaana}\p{Nko}]&&[\p{L}\p{M}]]"
_OTHER = rf"[[\p{{L}}\p{{N}}]--{_UNSPACED}--{_HANGUL}--{_RIGHT_TO_LEFT}]"
_STACKED = r"(?<=[\u17d2\u1039])\p{L}"  # a consonant under another, in Khmer and Burmese
_TOKEN = regex.compile(
    rf"{_UNSPACED}(?:\p{{M}}|{_STACKED})*+|{_HANGUL}++|{_RIGHT_TO_LEFT}++|{_OTHER}[{_OTHER}\p{{M}}]*+|.",
    regex.VERSION1 | regex.DOTALL,
)
_IN_HANGUL = regex.compile(_HANGUL, regex.VERSION1)


def tokens(text: str, case_sensitive: bool = False, turkic: bool = False) -> Iterator[str]:
    """The words of a text, folded, and between them every other character by itself, such as a space.

    A word is made of letters and digits, with the marks on them. In a script without spaces each character is a token,
    so that a word is found in the middle of a sentence, and also inside a longer word. A word ends where the script
    changes from or to one without spaces, Hangul, or one that is written from right to left.
    """
    return (match[0] for match in _TOKEN.finditer(fold(text, case_sensitive, turkic)))


class PhraseIndex:
    """A text that is read once, to look up many phrases. Texts and phrases are given as tokens.

    In the text, the last word of a phrase may have Korean particles.

    >>> PhraseIndex(tokens("A sea, the Sea.")).count(tokens("sea"))
    2
    """

    def __init__(self, text: Iterable[str]) -> None:
        self._codes: dict[str, str] = {}
        codes = self._codes
        self._coded = "".join([codes.setdefault(token, chr(len(codes))) for token in text])

    def count(self, words: Iterable[str]) -> int:
        """How often the phrase is in the text. Overlaps count once."""
        phrase, coded = list(words), self._coded
        if not phrase or any(token not in self._codes for token in phrase[:-1]):
            return 0
        head = "".join([self._codes[token] for token in phrase[:-1]])
        first, *others = self._forms(phrase[-1]) or [""]
        if others:
            coded = coded.translate(dict.fromkeys(map(ord, others), first))
        return coded.count(head + first) if first else 0

    def starts_with(self, words: Iterable[str]) -> bool:
        """Whether the text begins with the phrase."""
        phrase = list(words)
        place = len(phrase) - 1
        head = "".join([self._codes.get(token, "") for token in phrase[:-1]])
        begun = len(head) == place < len(self._coded) and self._coded.startswith(head)
        return begun and self._coded[place] in self._forms(phrase[-1])

    def _forms(self, word: str) -> Sequence[str]:
        """The codes of all words in the text that are this word, with or without particles."""
        plain = [self._codes[word]] if word in self._codes else []
        return [*plain, *self._with_particles.get(word, ())] if _IN_HANGUL.match(word) else plain

    @cached_property
    def _with_particles(self) -> Mapping[str, Sequence[str]]:
        found = defaultdict(list)
        for word, code in self._codes.items():
            if _IN_HANGUL.match(word):
                for noun in bare_nouns(word):
                    found[noun].append(code)
        return found
