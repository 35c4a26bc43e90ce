"""Texts that a grammar writes, taken by chance: what an engine could sample, without a model."""

import random
from functools import cache

from llguidance import LLMatcher, LLTokenizer

CLOSERS = (ord('"'), ord("}"), ord("]"))


@cache
def tokenizer() -> LLTokenizer:
    """One token a byte, and a few special ones."""
    return LLTokenizer("byte")


def compiled(grammar: str) -> LLMatcher:
    matcher = LLMatcher(tokenizer(), LLMatcher.grammar_from_lark(grammar), log_level=0)
    if matcher.is_error():
        raise AssertionError(matcher.get_error())
    return matcher


def accepts(grammar: LLMatcher, text: str) -> bool:
    """Whether the grammar writes exactly this text."""
    matcher = grammar.deep_copy()
    tokens = list(text.encode())
    return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()


def walk(grammar: LLMatcher, seed: int, length: int = 120, most: int = 2000) -> str | None:
    """A text of the grammar. From ``length`` bytes on it is brought to an end; None if it has none after ``most``."""
    chance = random.Random(seed)
    matcher = grammar.deep_copy()
    end = tokenizer().eos_token
    text = bytearray()
    while len(text) < most:
        mask = matcher.compute_bitmask()
        if matcher.is_error():
            raise AssertionError(f"{matcher.get_error()} after {bytes(text)!r}")
        allowed = [code for code in range(tokenizer().vocab_size) if mask[code // 8] >> (code % 8) & 1]
        closing = [code for code in (end, *CLOSERS) if code in allowed]
        if not allowed:
            raise AssertionError(f"the grammar leads nowhere after {bytes(text)!r}")
        hurried = chance.random() < (0.2 if len(text) < length else 1.0)
        code = closing[0] if closing and hurried else chance.choice(allowed)
        if code == end:
            if not matcher.is_accepting():
                raise AssertionError(f"the grammar allows an end after {bytes(text)!r}")
            return text.decode()
        if not matcher.consume_token(code):
            raise AssertionError(f"the grammar refuses {code} after {bytes(text)!r}")
        text.append(code)
    return None
