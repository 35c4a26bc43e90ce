"""What a trace tells of a program: its spans, and what is known of each when it begins and when it ends.

The names that begin with ``gen_ai.`` are those of OpenTelemetry's semantic conventions for generative AI.
"""

from contextlib import AbstractContextManager
from typing import Any

from service.engines.base import Call, Completion, Sample, Usage
from service.evaluators.base import Evaluation, Evaluator
from service.refinement.events import Refined, Reviewed, Round
from service.refinement.program import Program
from service.refinement.roles import CallRole
from service.spans import Span, current, span

EVALUATED = "gen_ai.evaluation.result"
FAILED = "evaluation_failed"
PASS_LABELS = {True: "pass", False: "fail"}

Expected = tuple[type[Exception], ...]
"""Exceptions that end a piece of work without its having failed."""


def program(kind: str, stated: Program) -> AbstractContextManager[Span]:
    known = {
        "gen_ai.operation.name": "invoke_workflow",
        "gen_ai.agent.name": stated.task,
        "redraft.program": stated.id,
        "redraft.task": stated.task,
    }
    return span(kind, known)


def refined(done: Refined) -> None:
    first, selected = (done.assessments.get(candidate.id) for candidate in (done.first, done.selected))
    current().set(
        {
            "redraft.stop_reason": done.stop_reason,
            "redraft.rounds": len(done.rounds) - 1,
            "redraft.selected": done.selected.id,
            "redraft.score.draft": first.score if first else None,
            "redraft.score": selected.score if selected else None,
            "redraft.passed": selected.passed if selected else None,
        }
    )


def reviewed(done: Reviewed) -> None:
    current().set({"redraft.score": done.assessment.score, "redraft.passed": done.assessment.passed})


def one_round(number: int, expected: Expected) -> AbstractContextManager[Span]:
    return span("round", {"redraft.round": number}, expected=expected)


def round_ended(ended: Round) -> None:
    current().set(
        {
            "redraft.candidates": len(ended.candidates),
            "redraft.accepted": ended.accepted,
            "redraft.selected": ended.incumbent,
            "redraft.gain": ended.gain,
        }
    )


def evaluator(asked: Evaluator, expected: Expected) -> AbstractContextManager[Span]:
    known: dict[str, str | bool] = {
        "gen_ai.evaluation.name": asked.type,
        "redraft.evaluator.authority": asked.authority,
        "redraft.evaluator.hard": asked.hard,
    }
    return span(f"evaluate {asked.type}", known, expected=expected)


def evaluated(evaluation: Evaluation) -> None:
    """Set the result on the evaluator's span, and add it as the event of the conventions, which other tools read."""
    failed = evaluation.error is not None
    score = {"gen_ai.evaluation.score.value": evaluation.score}
    label = None if evaluation.passed is None else PASS_LABELS[evaluation.passed]
    named = {"gen_ai.evaluation.name": evaluation.evaluator, "gen_ai.evaluation.score.label": label}
    current().set({**score, "redraft.evaluator.passed": evaluation.passed, "redraft.evaluator.failed": failed})
    current().add_event(EVALUATED, {**named, **score, "error.type": FAILED if failed else None})
    if failed:
        current().fail(FAILED)


def call(role: CallRole, model: str, made: Call[Any] | None = None) -> AbstractContextManager[Span]:
    """The span of an engine call. ``made``: None for a chat that is relayed."""
    known: dict[str, str | int | float | None] = {
        "gen_ai.operation.name": "chat",
        "redraft.role": role,
    }
    if isinstance(made, Sample):
        sampling = made.sampling
        known |= {
            "gen_ai.output.type": "text" if made.schema is None else "json",
            "gen_ai.request.max_tokens": sampling.stated_tokens,
            "gen_ai.request.temperature": sampling.temperature,
            "gen_ai.request.top_p": sampling.top_p,
            "gen_ai.request.seed": sampling.seed,
        }
    return span(f"chat {model}", known, model=model)


def called(usage: Usage, completion: Completion | None = None) -> None:
    current().set(
        {
            "gen_ai.usage.input_tokens": usage.prompt_tokens,
            "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens,
            "gen_ai.usage.output_tokens": usage.completion_tokens,
            "gen_ai.response.finish_reasons": [completion.finish_reason] if completion else None,
        }
    )
