"""What happens in a program, as it happens. Response, SSE, metrics and log all read this one stream."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from service.engines.base import Completion, Usage
from service.engines.relay import MessagePiece, RelayFinish
from service.refinement.candidate import Assessment, Candidate, Critique, Form, Lost
from service.refinement.policy import StopReason
from service.refinement.roles import CallRole, Models
from service.refinement.trust import UNKNOWN, JudgeTrust


@dataclass(frozen=True, slots=True)
class Started:
    program: str
    models: Models
    task: str
    judge_trust: JudgeTrust = UNKNOWN


@dataclass(frozen=True, slots=True)
class CallEnded:
    """One engine call is over."""

    role: CallRole
    usage: Usage
    seconds: float
    model: str


@dataclass(frozen=True, slots=True)
class EvaluatorEnded:
    evaluator: str
    seconds: float
    failed: bool


@dataclass(frozen=True, slots=True)
class RepairEnded:
    """Code tried to repair a rule in a text. ``kept``: whether the repaired text is a candidate."""

    rule: str
    kept: bool


@dataclass(frozen=True, slots=True)
class TextAborted:
    """A text was stopped while it was written. ``lost``: another takes its place; else it is kept as far as it came."""

    rule: str
    lost: bool
    usage: Usage


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of the ``index``-th answer to the ``prompt_index``-th prompt."""

    prompt_index: int
    index: int
    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """A piece of what the model thinks before that answer."""

    prompt_index: int
    index: int
    text: str


@dataclass(frozen=True, slots=True)
class TextBegun:
    """The ``index``-th text of a round has its first words. An earlier text with the same place was given up."""

    round: int
    index: int
    form: Form
    parent: str | None


@dataclass(frozen=True, slots=True)
class TextDelta:
    """A piece of the ``index``-th text of a round."""

    round: int
    index: int
    text: str


@dataclass(frozen=True, slots=True)
class TextReasoningDelta:
    """A piece of what the model thinks before that text."""

    round: int
    index: int
    text: str


@dataclass(frozen=True, slots=True)
class CandidateAdded:
    """``index``: the text's place in its round, if its pieces were shown."""

    candidate: Candidate
    index: int | None = None


@dataclass(frozen=True, slots=True)
class CandidateEvaluated:
    """``tokens``: what the program has spent by then."""

    candidate: Candidate
    assessment: Assessment
    tokens: int


FailureCause = Literal["decoder", "grammar"]


@dataclass(frozen=True, slots=True)
class ConstraintFailed:
    """A text did not keep to what it was sampled under. ``cause``: the decoder did not follow the grammar, or a text
    that did follow it breaks a rule that the grammar was to enforce. ``rules``: those concerned."""

    cause: FailureCause
    rules: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Tried:
    """A candidate for the writer's place has written some of the first drafts.

    candidate, writer: the models. candidate_passed, writer_passed: which share of their drafts passes every hard
    verifier.
    """

    candidate: str
    writer: str
    candidate_passed: float
    writer_passed: float


@dataclass(frozen=True, slots=True)
class CandidateFailed:
    """A candidate for the writer's place could not write, and the writer has written instead."""

    candidate: str
    writer: str
    reason: str


@dataclass(frozen=True, slots=True)
class Critiqued:
    round: int
    critique: Critique


@dataclass(frozen=True, slots=True)
class Round:
    """One step of the loop, once it is over.

    gain: the incumbent's score now less what it was; None if unknown.
    lost: the texts that were given up while they were written. They are not candidates.
    """

    number: int
    candidates: Sequence[Candidate]
    critiques: Sequence[Critique]
    incumbent: str
    accepted: bool
    gain: float | None
    seconds: float
    lost: Sequence[Lost] = ()


@dataclass(frozen=True, slots=True)
class RoundEnded:
    """``tokens``: what the program has spent by then."""

    round: Round
    tokens: int


@dataclass(frozen=True, slots=True)
class Refined:
    """The last event of a refine program: the whole account."""

    program: str
    models: Models
    judge_trust: JudgeTrust
    task: str
    selected: Candidate
    first: Candidate
    assessments: Mapping[str, Assessment]
    rounds: Sequence[Round]
    stop_reason: StopReason
    usage: Mapping[CallRole, Usage]

    @property
    def model(self) -> str:
        """The model that wrote the selected text, or the writer if the caller did."""
        return self.selected.model or self.models.writer


@dataclass(frozen=True, slots=True)
class Generated:
    """The last event of a generate program: the completions of each prompt, in order."""

    program: str
    model: str
    completions: Sequence[Sequence[Completion]]
    usage: Mapping[CallRole, Usage]


@dataclass(frozen=True, slots=True)
class Reviewed:
    """The last event of a critique program. ``critique`` is None where no feedback was asked for."""

    program: str
    models: Models
    judge_trust: JudgeTrust
    assessment: Assessment
    critique: Critique | None
    usage: Mapping[CallRole, Usage]


@dataclass(frozen=True, slots=True)
class Relayed:
    """The last event of a chat with tools: the whole message."""

    program: str
    model: str
    message: MessagePiece
    finish_reason: RelayFinish
    usage: Mapping[CallRole, Usage]


Outcome = Refined | Generated | Reviewed | Relayed
"""What the work of a program ends with."""


@dataclass(frozen=True, slots=True)
class Timing:
    queued_seconds: float
    """The wait for a place."""
    total_seconds: float
    """Since the request arrived."""


@dataclass(frozen=True, slots=True)
class Done:
    """The last event of a program that ran for a request, in place of its outcome."""

    outcome: Outcome
    timing: Timing


Event = (
    Started
    | CallEnded
    | EvaluatorEnded
    | RepairEnded
    | TextAborted
    | Delta
    | ReasoningDelta
    | MessagePiece
    | TextBegun
    | TextDelta
    | TextReasoningDelta
    | CandidateAdded
    | CandidateEvaluated
    | ConstraintFailed
    | Tried
    | CandidateFailed
    | Critiqued
    | RoundEnded
    | Outcome
    | Done
)
