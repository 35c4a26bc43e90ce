"""What grammars cost, by an engine that follows a script."""

import pytest
from llguidance import LLMatcher

from bench.scenarios.masks import RULES, Options, Wave, grammar_of, run_wave, summarize
from service.engines.scripted import ScriptedEngine


@pytest.mark.parametrize("name", RULES)
def test_every_rule_becomes_a_grammar(name: str) -> None:
    grammar = grammar_of(RULES[name])
    assert grammar is not None
    assert not LLMatcher.validate_grammar(LLMatcher.grammar_from_lark(grammar))


async def test_a_wave_counts_the_tokens_of_all_its_texts() -> None:
    engine = ScriptedEngine()

    wave = await run_wave(engine, None, Options(at_once=5), 0)

    assert len(engine.calls) == 5
    assert wave.tokens >= 5
    assert wave.seconds > 0


def test_the_table_says_which_bar_is_met() -> None:
    rows = summarize({"free": [Wave(100, 1.0)], "no commas": [Wave(95, 1.0)], "lower case": [Wave(80, 1.0)]})

    assert "| no commas | 95 | 0.95 (0.95 to 0.95) | yes |" in rows
    assert "| lower case | 80 | 0.80 (0.80 to 0.80) | **no** |" in rows
