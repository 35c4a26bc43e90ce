"""What the service answers. These models are the wire contract's output, made from a program's last event."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, Field

from service.engines.base import FinishReason, Usage
from service.evaluators.base import CriterionScore, Evaluation
from service.refinement.candidate import Assessment, Candidate, Critique, Form, Remark, Verification
from service.refinement.events import (
    CandidateAdded,
    CandidateEvaluated,
    Critiqued,
    Delta,
    Done,
    Event,
    Generated,
    ReasoningDelta,
    Refined,
    Relayed,
    Reviewed,
    Round,
    RoundEnded,
    Started,
    TextBegun,
    TextDelta,
    TextReasoningDelta,
    Timing,
)
from service.refinement.policy import StopReason
from service.refinement.roles import CallRole, Models
from service.refinement.trust import JudgeTrust
from service.wire.diff import Change, diff
from service.wire.requests import CritiqueRequest, GenerateRequest, NativeRequest, RefineRequest
from service.wire.sse import SseEvent, event_frame

LEFT_OUT_IF_NONE = Field(exclude_if=lambda value: value is None)
STREAMED_BEFORE = {"choices": {"__all__": {"text", "reasoning"}}}
"""What the last event of a streamed generate leaves out."""


class Problem(BaseModel):
    """What went wrong (RFC 9457). ``code`` is for programs; ``errors`` is there when fields are wrong."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    errors: Annotated[list["FieldProblem"] | None, LEFT_OUT_IF_NONE] = None


class FieldProblem(BaseModel):
    field: str
    message: str


class ChoiceBody(BaseModel):
    """``reasoning`` is there if it was asked for."""

    prompt_index: int
    index: int
    text: str
    reasoning: Annotated[str | None, LEFT_OUT_IF_NONE] = None
    finish_reason: FinishReason


class GenerateResponse(BaseModel):
    id: str
    model: str
    choices: list[ChoiceBody]
    usage: Usage
    timing: Timing


class IssueBody(BaseModel):
    rule: str
    message: str


class EvaluationBody(BaseModel):
    """``stderr``, the standard error of the score, and ``criteria`` are there for judges only. ``error``: why there is
    no result."""

    evaluator: str
    authority: Literal["verifier", "judge"]
    hard: bool
    passed: bool | None
    score: float | None
    stderr: Annotated[float | None, LEFT_OUT_IF_NONE] = None
    criteria: Annotated[tuple[CriterionScore, ...] | None, LEFT_OUT_IF_NONE] = None
    issues: list[IssueBody]
    error: str | None

    @classmethod
    def of(cls, evaluation: Evaluation) -> "EvaluationBody":
        return cls(
            evaluator=evaluation.evaluator,
            authority=evaluation.authority,
            hard=evaluation.hard,
            passed=evaluation.passed,
            score=evaluation.score,
            stderr=evaluation.stderr,
            criteria=evaluation.criteria or None,
            issues=[IssueBody(rule=issue.rule, message=issue.message) for issue in evaluation.issues],
            error=evaluation.error,
        )


def evaluation_bodies(assessment: Assessment | None) -> list[EvaluationBody]:
    return [EvaluationBody.of(evaluation) for evaluation in assessment.evaluations] if assessment else []


class ModelsBody(BaseModel):
    """Who played which role. ``candidate`` is there if some of the first drafts are by a candidate for the writer's
    place."""

    writer: str
    critic: str
    judge: str
    candidate: Annotated[str | None, LEFT_OUT_IF_NONE] = None

    @classmethod
    def of(cls, models: Models) -> "ModelsBody":
        return cls(**models.by_role())


class CritiqueResponse(BaseModel):
    """``model``: the writer's name. ``passed``: whether every hard verifier passed; null where there is none.

    ``remarks``: the model's own part of the feedback. ``fault_probability``: how sure the model is that something is
    wrong; null where it was not asked, or showed no evidence either way.
    """

    id: str
    model: str
    models: ModelsBody
    judge_trust: JudgeTrust
    passed: bool | None
    score: float | None
    evaluations: list[EvaluationBody]
    feedback: str | None
    remarks: tuple[Remark, ...]
    fault_probability: float | None
    usage: Usage
    timing: Timing


class LeftOutBody(BaseModel):
    """A rule that was checked but not enforced."""

    rule: str
    reason: str


class ConstraintsBody(BaseModel):
    """The rules that a text was sampled under, and those that were only checked afterwards."""

    enforced: list[str]
    left_out: list[LeftOutBody]

    @classmethod
    def of(cls, candidate: Candidate) -> "ConstraintsBody | None":
        """None if the text was sampled freely."""
        if candidate.under is None:
            return None
        left_out = [LeftOutBody(rule=rule, reason=reason) for rule, reason in candidate.under.left_out_rules]
        return cls(enforced=list(candidate.under.enforced_rules), left_out=left_out)


class CandidateBody(BaseModel):
    """``diff`` is against the parent; null where there is no parent. ``reasoning`` is there if it was asked for.

    ``model``: the one that wrote it; a repair has its parent's. Null for the caller's own draft.
    ``constraints``: null where the text was sampled freely.
    """

    id: str
    form: Form
    parent: str | None
    model: str | None
    text: str
    reasoning: Annotated[str | None, LEFT_OUT_IF_NONE] = None
    finish_reason: FinishReason
    score: float | None
    passed: bool | None
    evaluations: list[EvaluationBody]
    diff: list[Change] | None
    constraints: ConstraintsBody | None


class CritiqueBody(BaseModel):
    """Feedback on one candidate: the evaluators' issues, then the model's own; none means nothing to change.

    ``remarks``: the model's own issues, with their criteria and weights. ``fault_probability``: as in a critique's
    response. ``verifications`` is there where the critic is factored.
    """

    candidate: str
    issues: list[str]
    remarks: tuple[Remark, ...]
    fault_probability: float | None
    verifications: Annotated[tuple[Verification, ...] | None, LEFT_OUT_IF_NONE] = None

    @classmethod
    def of(cls, critique: Critique) -> "CritiqueBody":
        return cls(
            candidate=critique.candidate,
            issues=list(critique.issues),
            remarks=critique.remarks,
            fault_probability=critique.fault_probability,
            verifications=critique.verifications or None,
        )


class LostBody(BaseModel):
    """A text that was given up while it was written. ``rule``: the type of the evaluator that fails it however it goes
    on."""

    rule: str
    text: str
    finish_reason: Literal["aborted"] = "aborted"
    usage: Usage


class RoundBody(BaseModel):
    """``accepted``: whether the round changed the incumbent. ``lost`` is there if texts were given up."""

    round: int
    accepted: bool
    seconds: float
    critiques: list[CritiqueBody]
    candidates: list[CandidateBody]
    lost: Annotated[list[LostBody] | None, LEFT_OUT_IF_NONE] = None


class Selected(BaseModel):
    round: int
    candidate: str


class RefineUsage(BaseModel):
    total: Usage
    by_role: dict[CallRole, Usage]


class RefineResponse(BaseModel):
    """``improved``: whether the text is another one than the first draft: it outranks it, or was preferred to it.

    ``constraints``: what the text was sampled under; null where it was sampled freely.
    """

    id: str
    model: str
    models: ModelsBody
    judge_trust: JudgeTrust
    text: str
    score: float | None
    passed: bool | None
    improved: bool
    selected: Selected
    stop_reason: StopReason
    constraints: ConstraintsBody | None
    rounds: Annotated[list[RoundBody] | None, LEFT_OUT_IF_NONE] = None
    usage: RefineUsage
    timing: Timing


def total(usage: Mapping[Any, Usage]) -> Usage:
    return sum(usage.values(), Usage())


def generate_response(done: Generated, timing: Timing, *, reasoning: bool = False) -> GenerateResponse:
    choices = [
        ChoiceBody(
            prompt_index=prompt_index,
            index=index,
            text=c.text,
            reasoning=c.thoughts if reasoning else None,
            finish_reason=c.finish_reason,
        )
        for prompt_index, siblings in enumerate(done.completions)
        for index, c in enumerate(siblings)
    ]
    return GenerateResponse(id=done.program, model=done.model, choices=choices, usage=total(done.usage), timing=timing)


def critique_response(done: Reviewed, timing: Timing) -> CritiqueResponse:
    feedback = None
    if done.critique is not None:
        feedback = "\n".join(done.critique.issues) or "No issues."
    return CritiqueResponse(
        id=done.program,
        model=done.models.writer,
        models=ModelsBody.of(done.models),
        judge_trust=done.judge_trust,
        passed=done.assessment.passed,
        score=done.assessment.score,
        evaluations=evaluation_bodies(done.assessment),
        feedback=feedback,
        remarks=done.critique.remarks if done.critique else (),
        fault_probability=done.critique.fault_probability if done.critique else None,
        usage=total(done.usage),
        timing=timing,
    )


def refine_response(done: Refined, timing: Timing, *, trace: bool, reasoning: bool = False) -> RefineResponse:
    assessment = done.assessments.get(done.selected.id)
    return RefineResponse(
        id=done.program,
        model=done.model,
        models=ModelsBody.of(done.models),
        judge_trust=done.judge_trust,
        text=done.selected.text,
        score=assessment.score if assessment else None,
        passed=assessment.passed if assessment else None,
        improved=done.selected.id != done.first.id,
        selected=Selected(round=done.selected.round, candidate=done.selected.id),
        stop_reason=done.stop_reason,
        constraints=ConstraintsBody.of(done.selected),
        rounds=_round_bodies(done, reasoning) if trace else None,
        usage=RefineUsage(
            total=total(done.usage),
            by_role={role: done.usage.get(role, Usage()) for role in get_args(CallRole)},
        ),
        timing=timing,
    )


def _round_bodies(done: Refined, reasoning: bool) -> list[RoundBody]:
    texts = {candidate.id: candidate.text for ended in done.rounds for candidate in ended.candidates}
    return [_round_body(ended, texts, done.assessments, reasoning) for ended in done.rounds]


def _round_body(
    ended: Round, texts: Mapping[str, str], assessments: Mapping[str, Assessment], reasoning: bool
) -> RoundBody:
    return RoundBody(
        round=ended.number,
        accepted=ended.accepted,
        seconds=ended.seconds,
        critiques=[CritiqueBody.of(critique) for critique in ended.critiques],
        candidates=[_candidate_body(c, texts, assessments.get(c.id), reasoning) for c in ended.candidates],
        lost=[LostBody(rule=e.rule, text=e.completion.text, usage=e.completion.usage) for e in ended.lost] or None,
    )


def _candidate_body(
    candidate: Candidate, texts: Mapping[str, str], assessment: Assessment | None, reasoning: bool
) -> CandidateBody:
    return CandidateBody(
        id=candidate.id,
        form=candidate.form,
        parent=candidate.parent,
        model=candidate.model,
        text=candidate.text,
        reasoning=candidate.completion.thoughts if reasoning else None,
        finish_reason=candidate.completion.finish_reason,
        score=assessment.score if assessment else None,
        passed=assessment.passed if assessment else None,
        evaluations=evaluation_bodies(assessment),
        diff=None if candidate.parent is None else diff(texts[candidate.parent], candidate.text),
        constraints=ConstraintsBody.of(candidate),
    )


@dataclass(frozen=True, slots=True)
class NativeFormat:
    """How Redraft's own endpoints answer.

    trace: whether the response to a refine has its rounds.
    reasoning: whether the model's thoughts are shown.
    """

    trace: bool = True
    reasoning: bool = False

    @classmethod
    def for_request(cls, request: NativeRequest) -> "NativeFormat":
        match request:
            case RefineRequest():
                return cls(trace=request.trace, reasoning=request.reasoning)
            case GenerateRequest():
                return cls(reasoning=request.reasoning)
            case CritiqueRequest():
                return cls()

    def response(self, done: Done) -> GenerateResponse | CritiqueResponse | RefineResponse:
        """The whole answer."""
        match done.outcome:
            case Generated() as generated:
                return generate_response(generated, done.timing, reasoning=self.reasoning)
            case Reviewed() as reviewed:
                return critique_response(reviewed, done.timing)
            case Refined() as refined:
                return refine_response(refined, done.timing, trace=self.trace, reasoning=self.reasoning)
            case Relayed():
                raise TypeError("a chat with tools is answered in OpenAI's format only")

    def encode(self, event: Event) -> bytes:
        """The event as it is streamed; empty for one that is not shown."""
        if isinstance(event, Done):
            streamed = STREAMED_BEFORE if isinstance(event.outcome, Generated) else None
            return event_frame("done", self.response(event).model_dump(mode="json", exclude=streamed))
        shown = sse_event(event, reasoning=self.reasoning)
        return event_frame(*shown) if shown else b""

    def encode_error(self, body: Mapping[str, Any]) -> bytes:
        return event_frame("error", body)


def _dumped(body: BaseModel | None) -> Mapping[str, Any] | None:
    return None if body is None else body.model_dump(mode="json")


def sse_event(event: Event, *, reasoning: bool = False) -> SseEvent | None:
    """An event as it is streamed; None for those that only the metrics and the log read, and for the last.

    ``reasoning``: with the model's thoughts.
    """
    match event:
        case Started():
            return "started", {
                "id": event.program,
                "model": event.models.writer,
                "models": event.models.by_role(),
                "judge_trust": asdict(event.judge_trust),
                "task": event.task,
            }
        case ReasoningDelta() if reasoning:
            return "reasoning", {"prompt_index": event.prompt_index, "index": event.index, "text": event.text}
        case Delta():
            return "delta", {"prompt_index": event.prompt_index, "index": event.index, "text": event.text}
        case TextBegun():
            return "writing", {
                "round": event.round,
                "index": event.index,
                "form": event.form,
                "parent": event.parent,
            }
        case TextReasoningDelta() if reasoning:
            return "reasoning", {"round": event.round, "index": event.index, "text": event.text}
        case TextDelta():
            return "delta", {"round": event.round, "index": event.index, "text": event.text}
        case CandidateAdded(candidate, index):
            return "candidate", {
                "round": candidate.round,
                **({} if index is None else {"index": index}),
                "id": candidate.id,
                "form": candidate.form,
                "parent": candidate.parent,
                "model": candidate.model,
                "text": candidate.text,
                **({"reasoning": candidate.completion.thoughts} if reasoning else {}),
                "finish_reason": candidate.completion.finish_reason,
                "constraints": _dumped(ConstraintsBody.of(candidate)),
            }
        case CandidateEvaluated(candidate, assessment, tokens):
            return "evaluation", {
                "candidate": candidate.id,
                "score": assessment.score,
                "passed": assessment.passed,
                "evaluations": [body.model_dump(mode="json") for body in evaluation_bodies(assessment)],
                "tokens": tokens,
            }
        case Critiqued():
            return "critique", {"round": event.round, **CritiqueBody.of(event.critique).model_dump()}
        case RoundEnded(ended, tokens):
            return "round", {
                "round": ended.number,
                "incumbent": ended.incumbent,
                "accepted": ended.accepted,
                "gain": ended.gain,
                "tokens": tokens,
            }
        case _:
            return None
