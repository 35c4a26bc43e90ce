"""Grammars in xgrammar's notation write the same texts."""

import json
from functools import cache
from typing import Any

import jsonschema_rs
import pytest
import xgrammar

from bench.scenarios.made_schemas import make_schema
from service.evaluators.text.schema import FollowsSchema
from service.grammar.ebnf import to_ebnf
from service.grammar.writing import write_choices, write_grammar
from tests.support.walks import compiled, walk

END = 256


@cache
def compiler() -> xgrammar.GrammarCompiler:
    vocabulary = [bytes([code]) for code in range(END)] + [b"</s>"]
    tokens = xgrammar.TokenizerInfo(vocabulary, vocab_type=xgrammar.VocabType.RAW, stop_token_ids=[END])
    return xgrammar.GrammarCompiler(tokens, max_threads=1, cache_enabled=False)


def accepts(grammar: str, text: str) -> bool:
    matcher = xgrammar.GrammarMatcher(compiler().compile_grammar(to_ebnf(grammar)))
    return bool(matcher.accept_string(text) and matcher.accept_token(END))


@pytest.mark.parametrize("begin", range(0, 120, 40))
def test_a_text_of_the_grammar_is_one_in_the_other_notation(begin: int) -> None:
    held = 0
    for seed in range(begin, begin + 40):
        schema = make_schema(seed)
        try:
            FollowsSchema(schema=schema)
            grammar = write_grammar(schema)
        except ValueError:
            continue  # refused
        text = walk(compiled(grammar), seed)
        if text is not None:
            assert jsonschema_rs.validator_for(schema, offline=True, validate_formats=False).is_valid(json.loads(text))
            assert accepts(grammar, text), (seed, text)
            held += 1
    assert held > 15


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"enum": ['a"\\/b\n', {"b": [1.5, "/é"]}]}, [r'"a\"\\/b\n"', '{"b":[1.5,"/é"]}'], ['"a"', '{"b":[1.5]}']),
        ({"type": "string", "pattern": r'^[/"\\]{1,2}(?:x|\u4e00)*$'}, ['"/"', r'"\"\\x一"'], ['"///"', '"x"']),
        ({"type": "number", "minimum": -1.5, "maximum": 20}, ["-1.50", "0", "19.99", "7"], ["-2", "20.5", "1e3"]),
        ({"type": "string", "maxLength": 2}, ['""', r'"\n\\"'], ['"abc"']),
    ],
)
def test_examples(schema: dict[str, Any], good: list[str], bad: list[str]) -> None:
    grammar = write_grammar(schema)
    assert [text for text in good if not accepts(grammar, text)] == []
    assert [text for text in bad if accepts(grammar, text)] == []


def test_choices() -> None:
    grammar = write_choices(["dark", "dark blue", '"red" \\ /'])
    assert all(accepts(grammar, text) for text in ("dark", "dark blue", '"red" \\ /'))
    assert not any(accepts(grammar, text) for text in ("", "dar", "dark "))
