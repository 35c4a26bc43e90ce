"""Texts that are sampled under a grammar of llguidance by chance, as an engine would, without a model.

The vocabulary has every byte, and words with and without a space before them, so that tokens cross the ends of words in
every way.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from llguidance import LLMatcher, LLTokenizer
from llguidance._tokenizer import TokenizerWrapper

_WORDS = """
the a of and to in is it that for was on with as at by from this be are have not we they sea night rain house light
sugar salt ferry silver smoke sorry step sock refund honey cold Dear Hello Once upon time There is nothing left here
because every morning children walk slowly across the old wooden bridge while birds sing The It A But When She Finally
party art Paris well-known don't 3.14 1,000 1990 42 I II XIV iv etc Dr Mr e.g U.S vs am pm May 5 cats Straße naïve
café Élan Москва море и Ёлка Αθήνα سلام שלום हिन्दी 서울에서 서울 東京 ไทย İzmir ılık ſ K ﬁ ½ ² © 🙂 ３ ＡＢＣ
yes no maybe end What am Yours Boo Section Part PS P.S. Title JSON item
""".split()  # noqa: SIM905 - a list of them would take a page
_MARKS = [
    ". ",
    "! ",
    "? ",
    ", ",
    "; ",
    ": ",
    " - ",
    "—",
    "...",
    "…",
    ".\n\n",
    "\n- ",
    "\n* ",
    "\n1. ",
    "\n2. ",
    '" ',
    "*",
]
_MARKS += [
    "[",
    "]",
    "<<",
    ">>",
    "******",
    "\n\n******\n\n",
    "```",
    "。",
    "，",
    " (",
    ") ",
    "“",
    "”",
    "!?",
    ".",
    "\n",
    "\n\n",
]
END = 256
_GOING_ON = 0.75
"""How often a token that begins with a space or a mark is preferred, so that words come to an end."""


class _Vocabulary:
    eos_token_id = END
    bos_token_id = None

    def __init__(self) -> None:
        pieces = [f" {word}" for word in _WORDS] + _WORDS + _MARKS
        multiple = [each for each in dict.fromkeys(piece.encode() for piece in pieces) if len(each) > 1]
        self.tokens = [*(bytes([code]) for code in range(END)), b"</s>", *multiple]
        self.special_token_ids = [END]

    def __call__(self, text: bytes) -> Sequence[int]:
        return list(text)


@cache
def _vocabulary() -> _Vocabulary:
    return _Vocabulary()


@cache
def byte_tokenizer() -> LLTokenizer:
    return LLTokenizer(TokenizerWrapper(_vocabulary()))


@dataclass(frozen=True)
class Walk:
    """text: what was sampled. ended: whether the model might have stopped there. error: the matcher's, if any."""

    text: str
    ended: bool
    error: str = ""


class Walker:
    """Samples under grammars with a tokenizer, whose tokens it knows as bytes."""

    def __init__(self, tokenizer: LLTokenizer, tokens: Sequence[bytes], end: int) -> None:
        self._tokenizer, self._tokens, self._end = tokenizer, tokens, end
        self._words = [index for index, token in enumerate(tokens) if len(token) > 1 and index != end]
        self._spaced = [index for index, token in enumerate(tokens) if token[:1] in (b" ", b"\n", b".", b"!")]

    def walk(self, grammar: str, seed: int, *, most: int = 600, ending: float = 0.3) -> Walk:
        """Sample up to ``most`` tokens. ``ending``: how often a text ends where it may."""
        chance = random.Random(seed)
        matcher = LLMatcher(self._tokenizer, LLMatcher.grammar_from_lark(grammar), log_level=0)
        written: list[int] = []
        for _ in range(most):
            mask = matcher.compute_bitmask()
            if matcher.is_error():
                return Walk(self._text(written), ended=False, error=matcher.get_error())
            if self._allows(mask, self._end) and chance.random() < ending:
                return Walk(self._text(written), ended=True)
            token = self._choose(mask, chance)
            if token is None:
                return Walk(self._text(written), ended=self._allows(mask, self._end))
            if not matcher.consume_token(token):
                return Walk(self._text([*written, token]), ended=False, error=matcher.get_error())
            written.append(token)
        return Walk(self._text(written), ended=False)

    def _choose(self, mask: bytes, chance: random.Random) -> int | None:
        if chance.random() < _GOING_ON:
            spaced = [token for token in self._spaced if self._allows(mask, token)]
            if spaced:
                return chance.choice(spaced)
        multiple = [token for token in self._words if self._allows(mask, token)]
        if multiple and chance.random() < _GOING_ON:
            return chance.choice(multiple)
        allowed = [token for token in range(len(self._tokens)) if token != self._end and self._allows(mask, token)]
        return chance.choice(allowed) if allowed else None

    def _allows(self, mask: bytes, token: int) -> bool:
        return bool(mask[token >> 3] >> (token & 7) & 1)

    def _text(self, written: Sequence[int]) -> str:
        return b"".join(self._tokens[token] for token in written).decode("utf-8", "replace")


@cache
def word_walker() -> Walker:
    """The walker over the vocabulary of this module."""
    return Walker(byte_tokenizer(), _vocabulary().tokens, END)
