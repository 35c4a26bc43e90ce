"""Grammars that the engine's process compiles once."""

from types import SimpleNamespace
from typing import Any

import pytest

from service.engines.local.loading import GUIDANCE

managers = pytest.importorskip("vllm.v1.structured_output")
structured = pytest.importorskip("vllm.v1.structured_output.backend_types")

from service.engines.local.grammars import KeptGrammars, make_scheduler  # noqa: E402 - needs vLLM

GRAMMAR = structured.StructuredOutputOptions.GRAMMAR
LETTERS = "start: /[ab]{2}/"


def configuration(backend: str = GUIDANCE) -> Any:
    structured_outputs = SimpleNamespace(
        backend=backend,
        disable_any_whitespace=True,
        disable_additional_properties=False,
        enable_in_reasoning=False,
        reasoning_parser="",
        reasoning_parser_plugin="",
    )
    model = SimpleNamespace(get_vocab_size=lambda: 49152)
    scheduler = SimpleNamespace(scheduler_cls="ours", max_num_seqs=64, get_scheduler_cls=lambda: dict)
    return SimpleNamespace(structured_outputs_config=structured_outputs, model_config=model, scheduler_config=scheduler)


def test_a_grammar_is_compiled_once_and_each_request_goes_its_own_way(tokenizer: Any) -> None:
    kept = KeptGrammars(configuration(), tokenizer=tokenizer, vocab_size=49152)
    a, b = tokenizer.encode("a"), tokenizer.encode("b")

    first, second = kept.compile_grammar(GRAMMAR, LETTERS), kept.compile_grammar(GRAMMAR, LETTERS)

    assert first.accept_tokens("first", [*a, *b])
    assert not second.is_terminated()
    assert second.validate_tokens([*b, *b, *b]) == [*b, *b]
    third = kept.compile_grammar(GRAMMAR, LETTERS)
    assert third.validate_tokens([*a, *a, *a]) == [*a, *a]
    assert kept._compile_once.cache_info().misses == 1


def test_the_same_words_as_another_kind_of_rule_are_another_grammar(tokenizer: Any) -> None:
    kept = KeptGrammars(configuration(), tokenizer=tokenizer, vocab_size=49152)
    quoted = '"a"'
    regex = structured.StructuredOutputOptions.REGEX

    as_choice = kept.compile_grammar(structured.StructuredOutputOptions.CHOICE, f"[{quoted}]")
    as_regex = kept.compile_grammar(regex, f"[{quoted}]")

    assert as_choice.validate_tokens(tokenizer.encode("a"))
    assert as_regex.validate_tokens(tokenizer.encode('"'))
    assert not as_choice.validate_tokens(tokenizer.encode('"'))


def manager_of(config: Any, tokenizer: Any) -> Any:
    """vLLM's own, which makes grammars at once and in this thread."""
    config.parallel_config = SimpleNamespace(distributed_executor_backend="external_launcher")
    config.model_config.skip_tokenizer_init = True
    made = managers.StructuredOutputManager(config)
    made.tokenizer = tokenizer
    return made


def request_of(grammar: str) -> Any:
    asked = SimpleNamespace(structured_output_key=(GRAMMAR, grammar), grammar=None)
    outputs = SimpleNamespace(_backend=GUIDANCE)
    sampling = SimpleNamespace(structured_outputs=outputs, all_stop_token_ids=set())
    return SimpleNamespace(structured_output_request=asked, sampling_params=sampling, request_id="one")


def test_vllms_scheduler_has_a_manager_that_compiles_a_grammar_once(tokenizer: Any) -> None:
    config = configuration()
    manager = manager_of(config, tokenizer)

    scheduler: Any = make_scheduler(vllm_config=config, structured_output_manager=manager, log_stats=True)
    for _ in range(3):
        manager.grammar_init(request_of(LETTERS))

    assert scheduler == {"vllm_config": config, "structured_output_manager": manager, "log_stats": True}
    assert config.scheduler_config.scheduler_cls is None
    assert manager.backend._compile_once.cache_info()[:2] == (2, 1)


def test_another_backend_of_grammars_stays(tokenizer: Any) -> None:
    config = configuration(backend="xgrammar")
    manager = manager_of(config, tokenizer)
    make_scheduler(vllm_config=config, structured_output_manager=manager)
    assert manager.backend is None
