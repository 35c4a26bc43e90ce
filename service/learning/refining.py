"""The exam's last part: the service's loop with a model as the writer, and the same budget for every prompt.

This is what the service does with a model. A model whose single drafts have become better may still be worse here: if
all its drafts are alike, the loop has nothing to choose from.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from service.concurrency import gather
from service.engines.base import Engine, engine_seed
from service.learning.prompts import Prompt
from service.learning.recipe import Examining, Refining
from service.programs.compile import Programs, RequestLimits
from service.programs.models import ServedModels
from service.refinement.events import Refined
from service.refinement.loop import refine
from service.refinement.policy import StopReason
from service.refinement.program import PRESETS
from service.refinement.roles import Roles
from service.tasks.task import load_tasks
from service.wire.requests import RefineRequest

MOST_ROUNDS = 60
"""More than any budget pays for: the budget or a passing text ends a program."""
SECONDS = 3_600.0
FAILED: frozenset[StopReason] = frozenset(("deadline", "evaluators_failed", "engine_failed", "cancelled"))
"""Ends that say nothing of the model."""


@dataclass(frozen=True, slots=True)
class Refinement:
    """What came of a prompt. tokens: all that were spent on it, the prompt's too."""

    passed: bool
    tokens: int
    failed: bool


async def refine_all(
    engine: Engine, prompts: Sequence[Prompt], examining: Examining, refining: Refining, *, first: int = 0
) -> Sequence[Refinement]:
    """Refine a text for each prompt by the preset ``adaptive``, without a judge. Raises what a program raises.

    first: the number of the first prompt, by which each has seeds of its own.
    """
    most = PRESETS["adaptive"].drafts
    limits = RequestLimits(candidates=most, rounds=MOST_ROUNDS, tokens=examining.max_tokens, seconds=SECONDS)
    programs = Programs(load_tasks(), limits, ServedModels((engine.model,)))
    return await gather(
        _refine(engine, programs, prompt, _state(prompt, number, examining, refining))
        for number, prompt in enumerate(prompts, first)
    )


def _state(prompt: Prompt, number: int, examining: Examining, refining: Refining) -> Mapping[str, object]:
    seed = engine_seed(examining.seed * 1_000_003 + number * 10_000)
    sampling = {"temperature": examining.temperature, "max_tokens": examining.max_tokens, "seed": seed}
    return {
        "messages": [message.model_dump() for message in prompt.messages],
        "evaluators": prompt.evaluators,
        "judge": False,
        "search": {"preset": "adaptive", "rounds": MOST_ROUNDS},
        "stop": {"patience": MOST_ROUNDS},
        "budget": {"tokens": refining.tokens},
        "sampling": sampling,
    }


async def _refine(engine: Engine, programs: Programs, prompt: Prompt, stated: Mapping[str, object]) -> Refinement:
    program = programs.compile_refine(RefineRequest.model_validate_json(json.dumps(stated)), "batch")
    async with aclosing(refine(program, Roles.single(engine))) as events:
        async for event in events:
            if isinstance(event, Refined):
                spent = sum(usage.tokens for usage in event.usage.values())
                passed = prompt.verify(event.selected.text).passed
                return Refinement(passed, spent, event.stop_reason in FAILED)
    raise RuntimeError("a program ends with Refined")
