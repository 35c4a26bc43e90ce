"""Grammars under the embedded model's own tokenizer, without the model."""

from collections.abc import Sequence
from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from llguidance import LLTokenizer

from service.engines.local.bundled import prepare
from service.evaluators.base import Verifier
from tests.support.masked_walks import Walker
from tests.support.rule_sets import check_by_walking, rule_sets

pytestmark = pytest.mark.engine

END = 2


@cache
def bundled_walker() -> Walker:
    tokenizer = LLTokenizer((prepare() / "tokenizer.json").read_text(), eos_token=END)
    tokens = [tokenizer.decode_bytes([index]) for index in range(tokenizer.vocab_size)]
    return Walker(tokenizer, tokens, END)


@settings(max_examples=10, suppress_health_check=[HealthCheck.too_slow])
@given(rule_sets, st.sampled_from((None, 60, 100, 400)), st.integers(0, 1_000_000))
def test_every_text_of_the_bundled_tokenizer_passes_every_enforced_rule(
    verifiers: Sequence[Verifier], max_tokens: int | None, seed: int
) -> None:
    check_by_walking(bundled_walker(), verifiers, max_tokens, seed)
