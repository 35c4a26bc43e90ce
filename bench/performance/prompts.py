"""Prompts of exact lengths: texts to be rewritten, cut from one source text.

The source is a frozen copy of the project's decision records. Editing it changes every prompt, and with them what the
benchmark measures.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

SOURCE = Path(__file__).with_name("texts.txt")
STRIDE = 397
"""Tokens between the starts of two programs' texts: a prime, so that few of them are cut alike."""


class Tokenizer(Protocol):
    """The part of transformers' tokenizers that is used here."""

    @property
    def all_special_ids(self) -> list[int]: ...

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]: ...

    def decode(self, token_ids: list[int]) -> str: ...

    def apply_chat_template(
        self, conversation: list[dict[str, str]], *, tokenize: bool, add_generation_prompt: bool
    ) -> str: ...


class Prompts:
    """Gives prompts that differ in their first words, so that no two have a block in common.

    SmolLM2 spells digits one by one, and its default system prompt, those words and all digits of the number are its
    first 32 tokens: even the first block is never shared.
    """

    def __init__(self, tokenizer: Tokenizer, source: Path = SOURCE) -> None:
        self._tokenizer = tokenizer
        self._source = self._ids(source.read_text())
        self._numbers = itertools.count(1)

    def fresh(self, tokens: int, programs: int, repetition: int = 0) -> Sequence[str]:
        """One prompt of ``tokens`` tokens for each program: the texts of the repetition, under new numbers."""
        texts = range(repetition * programs, (repetition + 1) * programs)
        return [self._cut(next(self._numbers), tokens, text * STRIDE) for text in texts]

    def _cut(self, number: int, tokens: int, start: int) -> str:
        head = f"Note {number:06d}. Rewrite this text so that it is clearer:\n\n"
        room = tokens - len(self._ids(head))
        for begin in range(start, start + len(self._source)):
            text = head + self._tokenizer.decode(
                [self._source[i % len(self._source)] for i in range(begin, begin + room)]
            )
            if len(self._ids(text)) == tokens:  # where a cut falls inside a character or a word, it may not be
                return text
        raise ValueError(f"no prompt has exactly {tokens} tokens")

    def _ids(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False)
