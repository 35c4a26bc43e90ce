"""Grammars as the decoder runs them: proven before they are sent, and held against what came of them.

llguidance builds a grammar's automata while a text is written, within limits that an engine does not raise. A matcher
that meets one of them allows nothing but the end of the text from then on, and the engine reports a text that came to
its end. So a grammar is tried out here first, on the same tokens, and each text that ends is held against its grammar.
"""

import asyncio
import json
import random
import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from service.errors import InvalidRequest

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

MOST_STEPS = 120
"""Tokens of each text on which a grammar is tried out."""
MOST_KNOWN = 128
"""Grammars of which it is remembered what came of trying them out."""
MOST_DRAWS = 64
SAMPLES = (
    "The old lighthouse keeper walked down to the shore, as he did every evening, and looked at the sea. "
    "Nobody had come to the island for 3 weeks, and the bread was nearly gone. He counted what was left: two "
    "loaves, a bag of rice, and some tea.\n\nThen he saw a light! It moved slowly towards the rocks. ",
    '1. Mix 3-4 eggs (e.g. brown ones) with $2.50 of "free-range" milk at 7 p.m.\n- **Dr. A. Smith** is not sure: '
    "U.S. prices rose 12%...\n* Why? See https://x.org/a_b?c=1; or ask:\n\n## P.S. <<Title>> [name] It's 'ok' \u2014 "
    "10,000 of them!?\n```py\nx = {'a': [1, 2]}\n``` ",
)
"""Plain prose, and a text full of what is rare in it: what grammars are to shape, and where they meet their limits."""

LoadTokenizer = Callable[[], "LLTokenizer"]


class GrammarRefused(InvalidRequest):
    """The engine cannot sample under a grammar."""


class Grammars:
    """Tries out grammars on the tokens of one model. ``load``: loads the tokenizer; it takes a second, in a thread."""

    def __init__(self, load: LoadTokenizer) -> None:
        self._load = load
        self._tokenizer: LLTokenizer | None = None
        self._samples: list[list[int]] = []
        self._known: OrderedDict[str, LLMatcher | str] = OrderedDict()
        self._working = asyncio.Lock()

    async def prove(self, grammar: str) -> None:
        """Return if texts can be sampled under the grammar, else raise GrammarRefused with the reason."""
        known = await self._try_once(grammar)
        if isinstance(known, str):
            raise GrammarRefused(f"the engine cannot sample under this grammar: {known}")

    def breaks(self, grammar: str, reply: Sequence[int] | str, *, ended: bool) -> bool:
        """Whether a reply, its tokens or its text, is not one of a proven grammar's; the beginning of one if it has not
        ``ended`` by itself. Such a grammar is refused from then on. False where it has been forgotten meanwhile."""
        matcher = self._known.get(grammar, "")
        if isinstance(matcher, str):
            return matcher != ""
        if self._differs(matcher, reply, ended):
            self._known[grammar] = "the decoder failed at it"
            return True
        return False

    async def _try_once(self, grammar: str) -> "LLMatcher | str":
        if grammar not in self._known:
            async with self._working:
                if grammar not in self._known:
                    self._known[grammar] = await asyncio.to_thread(self._try, grammar)
        self._known.move_to_end(grammar)
        found = self._known[grammar]
        while len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)
        return found

    def _try(self, grammar: str) -> "LLMatcher | str":
        """A matcher at the grammar's beginning, or why there is none that works."""
        from llguidance import LLMatcher

        if self._tokenizer is None:
            self._tokenizer = self._load()
            self._samples = [self._tokenizer.tokenize_str(sample) for sample in SAMPLES]
        matcher = LLMatcher(self._tokenizer, LLMatcher.grammar_from_lark(grammar), log_level=0)
        faults = (self._find_fault(matcher.deep_copy(), sample) for sample in self._samples)
        return next(filter(None, faults), matcher)

    def _find_fault(self, written: "LLMatcher", sample: Sequence[int]) -> str:
        """Write a text as near to the sample as the grammar allows: why that failed, or an empty text."""
        draws = random.Random(0)  # noqa: S311 - nothing secret is drawn
        for step in range(MOST_STEPS):
            mask = written.compute_bitmask()
            if written.is_error() or written.is_stopped():
                break
            token = self._next(mask, sample, step, draws)
            if token is None or not written.consume_token(token):
                break
        if written.is_error():
            return written.get_error().partition("\n")[0] or "it is not valid"
        return "it leads nowhere" if not written.is_stopped() and not any(mask) else ""

    def _next(self, mask: bytes, sample: Sequence[int], step: int, draws: random.Random) -> int | None:
        """A token that the mask allows: one of the sample if possible, and the end only if there is no other."""
        if self._tokenizer is None:
            raise RuntimeError("grammars are tried out with a tokenizer")

        def allows(token: int) -> bool:
            return bool(mask[token // 8] >> (token % 8) & 1)

        length = len(sample)
        following = (sample[(step + offset) % length] for offset in range(length))
        if (found := next(filter(allows, following), None)) is not None:
            return found
        ends = set(self._tokenizer.eos_tokens)
        drawn = (draws.randrange(self._tokenizer.vocab_size) for _ in range(MOST_DRAWS))
        if (found := next((token for token in drawn if token not in ends and allows(token)), None)) is not None:
            return found
        places = (place for place, byte in enumerate(mask) if byte)
        tokens = (place * 8 + bit for place in places for bit in range(8) if mask[place] >> bit & 1)
        return next((token for token in tokens if token not in ends), None)

    def _differs(self, matcher: "LLMatcher", reply: Sequence[int] | str, ended: bool) -> bool:
        if self._tokenizer is None:
            raise RuntimeError("grammars are tried out with a tokenizer")
        read = matcher.deep_copy()
        tokens = self._tokenizer.tokenize_str(reply) if isinstance(reply, str) else list(reply)
        return read.try_consume_tokens(tokens) != len(tokens) or (ended and not read.is_accepting())


def bytes_as_tokens() -> "LLTokenizer":
    """For a model whose tokenizer is not at hand: each byte is a token."""
    from llguidance import LLTokenizer

    return LLTokenizer("byte")


def tokens_of(tokenizer: Any, vocabulary: int = 0) -> "LLTokenizer":
    """The tokenizer of transformers as llguidance reads it, and as vLLM gives it. ``vocabulary``: the model's size of
    it, where that is larger."""
    from llguidance import LLTokenizer
    from llguidance.hf import from_tokenizer

    own = getattr(tokenizer, "llg_tokenizer", None)  # Mistral's own has one
    return own if isinstance(own, LLTokenizer) else from_tokenizer(tokenizer, max(vocabulary, len(tokenizer)))


def begin_with(given: str, grammar: str | None) -> str:
    """The grammar of texts that begin with ``given`` and go on as another grammar's, or in any way.

    >>> print(begin_with("Dear ", "start: NAME\\nNAME: /[a-z]+/\\n"), end="")
    start: "Dear " rest
    rest: NAME
    NAME: /[a-z]+/
    """
    rest = "rest: /(?s:.*)/\n" if grammar is None else re.sub(r"(?m)^start:", "rest:", grammar, count=1)
    return f"start: {json.dumps(given, ensure_ascii=False)} rest\n{rest}"
