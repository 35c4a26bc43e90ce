"""Grammars in the engine's process: compiled once, and copied for each request.

vLLM loads this through its setting ``scheduler_cls``, because its backend of grammars has none. It would compile a
grammar for each request that has it (docs/design/decisions/0067-grammars-compiled-once.md).
"""

from collections.abc import Set
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from vllm.v1.structured_output.backend_guidance import GuidanceBackend, GuidanceGrammar

from service.engines.local.loading import GUIDANCE

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.v1.core.sched.interface import SchedulerInterface
    from vllm.v1.structured_output import StructuredOutputManager
    from vllm.v1.structured_output.backend_types import StructuredOutputOptions

MOST_KEPT = 128
"""Compiled grammars. A large one takes about 1 MiB."""


def make_scheduler(
    *, vllm_config: "VllmConfig", structured_output_manager: "StructuredOutputManager", **others: Any
) -> "SchedulerInterface":
    """vLLM's own scheduler. If grammars are llguidance's, they are kept."""
    if vllm_config.structured_outputs_config.backend == GUIDANCE:
        structured_output_manager.backend = KeptGrammars(
            vllm_config,
            tokenizer=structured_output_manager.tokenizer,
            vocab_size=vllm_config.model_config.get_vocab_size(),
        )
    vllm_config.scheduler_config.scheduler_cls = None
    scheduler = vllm_config.scheduler_config.get_scheduler_cls()
    return scheduler(vllm_config=vllm_config, structured_output_manager=structured_output_manager, **others)


class KeptGrammars(GuidanceBackend):  # type: ignore[misc]  # vLLM is untyped here
    """vLLM's backend of llguidance, where a request gets a copy of the grammar. Copying one takes a hundredth of a
    millisecond, compiling it 6 to 30 milliseconds."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._compile_once = lru_cache(MOST_KEPT)(super().compile_grammar)

    def compile_grammar(
        self,
        request_type: "StructuredOutputOptions",
        grammar_spec: str,
        stop_token_ids: Set[int] | None = None,
    ) -> GuidanceGrammar:
        compiled = self._compile_once(request_type, grammar_spec)
        return replace(compiled, ll_matcher=compiled.ll_matcher.deep_copy())
