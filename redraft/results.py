"""What the service answers. docs/reference/api.md explains the fields.

Fields that a newer service adds are ignored, and what takes a word of a list is plain text, so that a new word breaks
no older client. ``model_dump_json(exclude_unset=True)`` gives an answer as it was sent.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict


class Result(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Usage(Result):
    """What engine calls cost. ``cached_tokens`` is a part of ``prompt_tokens``, and ``reasoning_tokens`` of
    ``completion_tokens``."""

    calls: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int = 0


class Timing(Result):
    queued_seconds: float
    total_seconds: float


class Choice(Result):
    """``finish_reason``: stop, length where the text was cut, or content_filter where a remote engine's filter broke it
    off. ``text`` and ``reasoning``: of a stream what its events join to; no ``reasoning`` unless it was asked for."""

    prompt_index: int
    index: int
    text: str = ""
    reasoning: str | None = None
    finish_reason: str


class GenerateResult(Result):
    """``choices``: in the order of the prompts, then of the siblings."""

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
    """What a chat completion's line of a batch is answered with."""

    id: str
    model: str
    choices: tuple[ChatChoice, ...]
    usage: ChatUsage


class Issue(Result):
    rule: str
    message: str


class CriterionScore(Result):
    """``score`` and ``stderr`` are None where the judge abstained."""

    name: str
    score: float | None
    stderr: float | None
    mass: float


class Evaluation(Result):
    """``authority``: verifier or judge; only a judge has ``criteria``. ``error``: why there is no result."""

    evaluator: str
    authority: str
    hard: bool
    passed: bool | None
    score: float | None
    criteria: tuple[CriterionScore, ...] | None = None
    issues: tuple[Issue, ...]
    error: str | None


class Models(Result):
    """The names of the models that played the roles."""

    writer: str
    critic: str
    judge: str


class CritiqueResult(Result):
    """``passed``: whether every hard verifier passed; None where there is none."""

    id: str
    model: str
    models: Models
    passed: bool | None
    score: float | None
    evaluations: tuple[Evaluation, ...]
    feedback: str | None
    usage: Usage
    timing: Timing


class Change(Result):
    """``op``: equal, insert or delete."""

    op: str
    text: str


class Candidate(Result):
    """``form``: draft, redraft or edit. ``diff``: what differs from ``parent``; None where there is no parent.
    ``reasoning``: None unless it was asked for."""

    id: str
    form: str
    parent: str | None
    text: str
    reasoning: str | None = None
    finish_reason: str
    score: float | None
    passed: bool | None
    evaluations: tuple[Evaluation, ...]
    diff: tuple[Change, ...] | None


class Verification(Result):
    question: str
    answer: str


class Critique(Result):
    """No ``issues``: nothing to change. ``verifications``: what a factored critic went by."""

    candidate: str
    issues: tuple[str, ...]
    verifications: tuple[Verification, ...] | None = None


class Round(Result):
    """``accepted``: whether the round changed the best candidate so far."""

    round: int
    accepted: bool
    seconds: float
    critiques: tuple[Critique, ...]
    candidates: tuple[Candidate, ...]


class Selected(Result):
    round: int
    candidate: str


class RefineUsage(Result):
    """``by_role``: of draft, critique, judge and revise."""

    total: Usage
    by_role: dict[str, Usage]


class RefineResult(Result):
    """``improved``: whether the text is another one than the first draft. ``rounds``: None without a trace."""

    id: str
    model: str
    models: Models
    text: str
    score: float | None
    passed: bool | None
    improved: bool
    selected: Selected
    stop_reason: str
    rounds: tuple[Round, ...] | None = None
    usage: RefineUsage
    timing: Timing


class Model(Result):
    id: str
    object: str
    created: int
    owned_by: str


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
