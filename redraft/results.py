"""The service's answers. docs/reference/api.md describes their fields.

Fields that a newer service adds are ignored. Fields with a fixed set of words are plain strings, so that a new word
does not break an older client. ``model_dump_json(exclude_unset=True)`` returns an answer as it was sent.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict


class Result(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Usage(Result):
    """What engine calls cost. ``prompt_tokens`` include ``cached_tokens``, and ``completion_tokens`` include
    ``reasoning_tokens``."""

    calls: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int = 0


class Timing(Result):
    queued_seconds: float
    total_seconds: float


class Choice(Result):
    """One text.

    prompt_index, index: which prompt, and which of its texts.
    text, reasoning: of a stream, joined from its events. ``reasoning`` only with ``reasoning=True``.
    finish_reason: stop; length if the text was cut at a limit; content_filter if a remote engine's filter stopped it;
        landed if it ended at a sentence just before that; budget, deadline or engine_failed if one of these cut it.
    """

    prompt_index: int
    index: int
    text: str = ""
    reasoning: str | None = None
    finish_reason: str


class GenerateResult(Result):
    """The result of ``generate``. ``choices``: in the order of the prompts, then of the texts for each."""

    id: str
    model: str
    choices: tuple[Choice, ...]
    usage: Usage
    timing: Timing


class ChatMessage(Result):
    """``tool_calls``: as the model made them."""

    role: str
    content: str | None = None
    tool_calls: tuple[dict[str, Any], ...] | None = None


class ChatChoice(Result):
    index: int
    message: ChatMessage
    finish_reason: str


class ChatUsage(Result):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatCompletion(Result):
    """The result of a chat completion in a batch."""

    id: str
    model: str
    choices: tuple[ChatChoice, ...]
    usage: ChatUsage


class Issue(Result):
    rule: str
    message: str


class CriterionScore(Result):
    """A judge's score on one criterion. ``score`` and ``stderr`` are None if the judge abstained."""

    name: str
    score: float | None
    stderr: float | None
    mass: float


class Evaluation(Result):
    """One evaluator's result.

    authority: verifier or judge. stderr: the standard error of a judge's score. criteria: of a judge only. error: why
    there is no result.
    """

    evaluator: str
    authority: str
    hard: bool
    passed: bool | None
    score: float | None
    stderr: float | None = None
    criteria: tuple[CriterionScore, ...] | None = None
    issues: tuple[Issue, ...]
    error: str | None


class Models(Result):
    """The names of the models that played the roles. ``candidate``: wrote some of the first drafts, if one did."""

    writer: str
    critic: str
    judge: str
    candidate: str | None = None


class JudgeTrust(Result):
    """How far the judge's word goes.

    level: drive, break_ties or none.
    share: of pairs of a right and a wrong reply, how many it ranked rightly; None if not measured.
    source: calibrated, built_in or unknown.
    """

    level: str
    share: float | None
    source: str


class Remark(Result):
    """One thing that a model says should change.

    criterion: the name of the criterion that the text falls short of, if the model named one.
    weight: how much it counts, in [0, 1].
    """

    message: str
    criterion: str | None
    weight: float


class CritiqueResult(Result):
    """The result of ``critique``.

    passed: whether every hard verifier passed; None without hard verifiers.
    remarks: the model's own part of the feedback.
    fault_probability: how sure the model is that something is wrong; None if it was not asked or cannot tell.
    """

    id: str
    model: str
    models: Models
    judge_trust: JudgeTrust
    passed: bool | None
    score: float | None
    evaluations: tuple[Evaluation, ...]
    feedback: str | None
    remarks: tuple[Remark, ...]
    fault_probability: float | None
    usage: Usage
    timing: Timing


class Change(Result):
    """``op``: equal, insert or delete."""

    op: str
    text: str


class LeftOutRule(Result):
    """A rule that was checked but not enforced."""

    rule: str
    reason: str


class Constraints(Result):
    """The rules that a text was sampled under, and those that were only checked afterwards."""

    enforced: tuple[str, ...]
    left_out: tuple[LeftOutRule, ...]


class Candidate(Result):
    """A text that was written, with its evaluations.

    form: draft, redraft, edit or repair. parent: the id of the candidate that it revises or repairs.
    model: the one that wrote it, or its parent if it is a repair; None for the caller's own draft.
    reasoning: only with ``reasoning=True``.
    diff: the changes from the parent; None without a parent.
    constraints: what the text was sampled under; None if it was sampled freely.
    """

    id: str
    form: str
    parent: str | None
    model: str | None
    text: str
    reasoning: str | None = None
    finish_reason: str
    score: float | None
    passed: bool | None
    evaluations: tuple[Evaluation, ...]
    diff: tuple[Change, ...] | None
    constraints: Constraints | None = None


class Verification(Result):
    question: str
    answer: str


class Critique(Result):
    """What a critic said. Without ``issues`` there is nothing to change.

    remarks: the model's own issues. fault_probability: as in CritiqueResult. verifications: a factored critic's.
    """

    candidate: str
    issues: tuple[str, ...]
    remarks: tuple[Remark, ...]
    fault_probability: float | None
    verifications: tuple[Verification, ...] | None = None


class Lost(Result):
    """A text that was given up while it was written.

    rule: the type of the evaluator that fails it however it goes on. usage: what it had cost.
    """

    rule: str
    text: str
    finish_reason: str
    usage: Usage


class Round(Result):
    """``accepted``: whether the round changed the best candidate so far. ``lost``: None if no text was given up."""

    round: int
    accepted: bool
    seconds: float
    critiques: tuple[Critique, ...]
    candidates: tuple[Candidate, ...]
    lost: tuple[Lost, ...] | None = None


class Selected(Result):
    round: int
    candidate: str


class RefineUsage(Result):
    """``by_role``: of draft, critique, judge and revise."""

    total: Usage
    by_role: dict[str, Usage]


class RefineResult(Result):
    """The result of ``refine``.

    score, passed: of ``text``. improved: whether ``text`` differs from the first draft.
    selected: which candidate ``text`` is. stop_reason: why the search ended.
    constraints: what ``text`` was sampled under; None if it was sampled freely.
    rounds: all of them; None with ``trace=False``.
    """

    id: str
    model: str
    models: Models
    judge_trust: JudgeTrust
    text: str
    score: float | None
    passed: bool | None
    improved: bool
    selected: Selected
    stop_reason: str
    constraints: Constraints | None = None
    rounds: tuple[Round, ...] | None = None
    usage: RefineUsage
    timing: Timing


class Model(Result):
    """A model that requests may name.

    judge_trust: how far its word goes as a judge. judge_digest: of its weights and its prompts as a judge, under which
    a calibration is kept; None until its engine serves.
    """

    id: str
    object: str
    created: int
    owned_by: str
    judge_trust: JudgeTrust | None = None
    judge_digest: str | None = None


class ModelList(Result):
    object: str
    data: tuple[Model, ...]


class TaskSummary(Result):
    name: str
    description: str


class TaskList(Result):
    tasks: tuple[TaskSummary, ...]


class FieldProblem(Result):
    """``field`` is a path such as ``evaluators.0.pattern``."""

    field: str
    message: str


class Problem(Result):
    """A problem document (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    errors: tuple[FieldProblem, ...] | None = None
