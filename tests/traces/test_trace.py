"""What a trace keeps of a program."""

import json
from typing import Any

import pytest
from pydantic import TypeAdapter

from service.engines.base import Completion, Usage
from service.engines.conversation import Conversation, Turn
from service.evaluators.catalogue import AnyEvaluator
from service.evaluators.model.perplexity import Perplexity
from service.refinement.events import Done, Generated, Timing
from service.refinement.program import Budget, Generate
from service.refinement.roles import Models
from service.traces.redaction import redact
from service.traces.trace import make_trace, state_evaluator

ASKED = Conversation(Turn("user", "Who?")).with_user("Tell me.")


@pytest.mark.parametrize(("text", "ids"), [("Ask jo@example.com.", None), ("Ask Jo.", [3, 1, 4])])
def test_token_ids_are_kept_only_of_texts_that_hold_nothing_to_redact(text: str, ids: list[int] | None) -> None:
    program = Generate(
        id="gen-1", task="general", models=Models.single("m"), budget=Budget(1.0), requests=[ASKED], to_store={}
    )
    completion = Completion(text, "stop", Usage(1, 5, 0, 3), token_ids=(3, 1, 4))
    done = Done(Generated("gen-1", "m", [[completion]], {"draft": completion.usage}), Timing(0.0, 1.0))
    trace = make_trace(program, done, "ann", 100.0, redact)

    assert trace.document["candidates"][0]["token_ids"] == ids
    assert trace.document["prompts"] == [[{"role": "user", "content": "Who?\n\nTell me.", "images": 0}]]
    assert (trace.summary.tokens, trace.summary.kind, trace.document["selected"]) == (8, "generate", "0.0")


@pytest.mark.parametrize(
    "stated",
    [
        {"type": "length", "unit": "words", "max": 9, "hard": False},
        {"type": "keywords", "include": ["salt"], "exclude": ["sugar"], "counts": {"sea": {"min": 2}}},
        {"type": "regex", "pattern": "^S", "weight": 2.0},
        {"type": "starts_with", "text": "Sea"},
        {"type": "ends_with", "text": "salt."},
        {"type": "one_of", "options": ["yes", "no"]},
        {"type": "number", "value": 3, "tolerance": 0.5},
        {"type": "language", "code": "en"},
        {"type": "format", "kind": "lowercase"},
        {"type": "json_schema", "schema": {"type": "object", "required": ["a"]}},
    ],
)
def test_an_evaluator_is_kept_as_a_request_states_it(stated: dict[str, Any]) -> None:
    evaluators: TypeAdapter[tuple[Any, ...]] = TypeAdapter(tuple[AnyEvaluator, ...])
    [evaluator] = evaluators.validate_json(json.dumps([stated]))
    [again] = evaluators.validate_json(json.dumps([state_evaluator(evaluator)]), strict=True)
    assert again == evaluator


def test_of_an_evaluator_that_needs_more_than_the_text_there_is_only_its_type() -> None:
    assert state_evaluator(Perplexity()) == {"type": "perplexity", "hard": False}
