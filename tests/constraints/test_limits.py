"""Grammars of words against a vocabulary of a model's size: llguidance bounds the work on each token's mask."""

from collections.abc import Sequence
from functools import cache
from itertools import product
from typing import Any

import pytest
from llguidance import LLMatcher, LLTokenizer
from llguidance._tokenizer import TokenizerWrapper

from service.constraints.algebra import Case, Constraint, Counter, Demand, Excluded, Forbidden, Included
from service.constraints.compile import compile_constraints
from service.engines.decoding import tokens_of

WORDS = ("salt", "wind", "sand", "foam", "dusk", "mist", "fish", "ship", "crab", "gull", "rock", "dock", "port", "surf")


class Vocabulary:
    """Every byte, and up to five of the commonest letters, with and without a space before them: 75,000 tokens."""

    eos_token_id = 256
    bos_token_id = None

    def __init__(self) -> None:
        letters = ["".join(each) for count in (2, 3, 4, 5) for each in product("aeinostr", repeat=count)]
        spaced = [f" {text}" for text in letters]
        self.tokens = [*(bytes([code]) for code in range(256)), b"</s>", *map(str.encode, (*letters, *spaced))]
        self.special_token_ids = [256]

    def __call__(self, text: bytes) -> Sequence[int]:
        return list(text)


@cache
def made_up_tokens() -> LLTokenizer:
    return LLTokenizer(TokenizerWrapper(Vocabulary()))


@pytest.mark.parametrize("unit", ["words", "lines", "bullets"])
@pytest.mark.parametrize(
    "other",
    [Forbidden("eE"), Forbidden("nN"), Forbidden(".!?"), Forbidden(","), Case("lower"), Excluded(("the", "and"))],
)
def test_a_text_of_a_hundred_words_stays_within_the_decoders_limits(unit: str, other: Demand) -> None:
    counter = Counter("words", most=120) if unit == "words" else Counter(unit, 1, 9)  # type: ignore[arg-type]
    allowed = [word for word in WORDS if not isinstance(other, Forbidden) or not set(word) & set(other.characters)]
    text = ("- " if unit == "bullets" else "") + " ".join(allowed * 10)[:500]

    write_under([counter, other], made_up_tokens(), list(text.encode()))


@pytest.mark.parametrize(
    ("counter", "text"),
    [
        (Counter("sentences", least=3), "Milk has a bit of salt in it and it is good. " * 30),
        (Counter("numbered", least=2), f"1. Aha{'1150' * 20} hanada2019haguary of milk and salt"),
    ],
)
def test_a_letter_that_may_not_appear_stays_within_them_for_a_models_tokens(
    counter: Counter, text: str, tokenizer: Any
) -> None:
    tokens = tokens_of(tokenizer)
    write_under([Forbidden("eE"), counter, Included(("milk", "salt"))], tokens, tokens.tokenize_str(text.strip()))


def write_under(rules: Sequence[Demand], tokenizer: LLTokenizer, tokens: Sequence[int]) -> None:
    """Write tokens under rules, with a mask before each."""
    made = compile_constraints([Constraint(f"rule{number}", demand) for number, demand in enumerate(rules)])
    assert made.left_out == ()
    assert made.grammar is not None
    matcher = LLMatcher(tokenizer, LLMatcher.grammar_from_lark(made.grammar), log_level=0)
    for token in tokens:
        matcher.compute_bitmask()
        assert not matcher.is_error(), matcher.get_error()
        assert matcher.consume_token(token)
