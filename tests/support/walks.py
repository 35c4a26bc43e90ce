"""Texts that a grammar writes, taken by chance: what an engine could sample, without a model."""

import random
from functools import cache

import xgrammar

END = 256
CLOSERS = (END, ord('"'), ord("}"), ord("]"))


@cache
def compiler() -> xgrammar.GrammarCompiler:
    vocabulary = [bytes([code]) for code in range(END)] + [b"</s>"]
    tokens = xgrammar.TokenizerInfo(vocabulary, vocab_type=xgrammar.VocabType.RAW, stop_token_ids=[END])
    return xgrammar.GrammarCompiler(tokens, max_threads=1, cache_enabled=False)


def compiled(grammar: str) -> xgrammar.CompiledGrammar:
    return compiler().compile_grammar(grammar)


def accepts(grammar: xgrammar.CompiledGrammar, text: str) -> bool:
    """Whether the grammar writes exactly this text."""
    matcher = xgrammar.GrammarMatcher(grammar)
    return bool(matcher.accept_string(text) and matcher.accept_token(END))


def walk(grammar: xgrammar.CompiledGrammar, seed: int, length: int = 120, most: int = 2000) -> str | None:
    """A text of the grammar. From ``length`` bytes on it is brought to an end; None if it has none after ``most``."""
    chance = random.Random(seed)
    matcher = xgrammar.GrammarMatcher(grammar)
    mask = xgrammar.allocate_token_bitmask(1, END + 1)
    text = bytearray()
    while len(text) < most:
        matcher.fill_next_token_bitmask(mask)
        bits = mask[0].tolist()
        allowed = [code for code in range(END + 1) if bits[code // 32] >> (code % 32) & 1]
        closing = [code for code in CLOSERS if code in allowed]
        if not allowed:
            raise AssertionError(f"the grammar leads nowhere after {bytes(text)!r}")
        hurried = chance.random() < (0.2 if len(text) < length else 1.0)
        code = closing[0] if closing and hurried else chance.choice(allowed)
        if not matcher.accept_token(code):
            raise AssertionError(f"the grammar refuses {code} after {bytes(text)!r}")
        if code == END:
            return text.decode()
        text.append(code)
    return None
