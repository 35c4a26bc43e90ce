"""Candidates, and what is known about them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from service.constraints.algebra import Compiled, Distortion
from service.engines.base import Completion
from service.engines.conversation import Conversation
from service.evaluators.base import Evaluation, Issue

Form = Literal["draft", "redraft", "edit", "repair"]
"""How a text is made: asked for by the request alone, by the request and what failed before, or by showing a parent; or
repaired by code from its parent."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One text. ``parent`` is the id of the candidate whose text it changes; None for drafts and redrafts.

    ``asked``: the conversation that the text replies to. A repair has its parent's. ``under``: the constraints that it
    was sampled under; None if it was sampled freely. ``model``: the one that wrote it, or its parent if it is a repair;
    None if its caller did.
    """

    id: str
    round: int
    form: Form
    parent: str | None
    asked: Conversation
    completion: Completion
    under: Compiled | None = field(default=None, compare=False)  # it may hold a schema, which has no hash
    model: str | None = None

    @property
    def free(self) -> bool:
        """Whether nothing was enforced while it was sampled."""
        return self.under is None or not self.under.enforced

    @property
    def bound(self) -> bool:
        """Whether rules were enforced that change what the model would write."""
        enforced = () if self.under is None else self.under.enforced
        return any(constraint.distortion > Distortion.SLIGHT for constraint in enforced)

    @property
    def text(self) -> str:
        return self.completion.text

    @property
    def is_complete(self) -> bool:
        """Whether the text came to its end. A text that was stopped because it had all that its rules allow is complete
        once it is repaired."""
        stopped = self.form == "repair" and self.completion.finish_reason == "aborted"
        return stopped or self.completion.is_complete

    @property
    def conversation(self) -> Conversation:
        """The one that ends with the text."""
        return self.asked.with_reply(self.completion)


@dataclass(frozen=True, slots=True)
class Lost:
    """A text that was lost, and what it had cost. ``rule``: the type of the verifier that fails it."""

    rule: str
    completion: Completion


@dataclass(frozen=True, slots=True)
class Rank:
    """What candidates are ordered by, the first field that differs deciding; each in [0, 1].

    A field is None where no evaluator speaks to it. What an evaluator did not find out counts as 0.
    """

    hard: float | None
    soft: float | None
    judged: float | None


@dataclass(frozen=True)
class Assessment:
    """What is known of one candidate.

    evaluations: all evaluators' results, in the order in which the evaluators were asked for.
    complete: whether the text came to its end. No evaluator has to see that.
    """

    evaluations: Sequence[Evaluation]
    complete: bool = True

    @property
    def passed(self) -> bool | None:
        """Whether every hard verifier passed; None where there is none, or one of them failed to run."""
        results = [evaluation.passed for evaluation in self.evaluations if evaluation.hard]
        if False in results:
            return False
        return None if None in results or not results else True

    @property
    def issues(self) -> Sequence[Issue]:
        return [issue for evaluation in self.evaluations for issue in evaluation.issues]

    @property
    def stderr(self) -> float:
        """The standard error of the judges' common score; 0 where no judge gave one."""
        judges = [e for e in self.evaluations if e.authority == "judge" and e.stderr is not None]
        total = sum(judge.weight for judge in judges)
        return sum((judge.weight * (judge.stderr or 0.0)) ** 2 for judge in judges) ** 0.5 / total if judges else 0.0

    @cached_property
    def rank(self) -> Rank:
        return Rank(
            hard=_mean([e for e in self.evaluations if e.hard]),
            soft=_mean([e for e in self.evaluations if not e.hard and e.authority == "verifier"]),
            judged=_mean([e for e in self.evaluations if not e.hard and e.authority == "judge"]),
        )

    @cached_property
    def score(self) -> float | None:
        """The rank as one number in [0, 1] that never contradicts its order; None where nothing is known.

        Each level of the rank that is not full takes the lower half of what is left, so a candidate that
        fails a hard verifier is below 1/2 as soon as anything else is scored too, and one that passes is not.
        """
        if all(evaluation.score is None for evaluation in self.evaluations):
            return None
        rank = self.rank
        levels = [level for level in (rank.hard, rank.soft, rank.judged) if level is not None]
        score = levels.pop()
        for level in reversed(levels):
            score = level / 2 if level < 1 else 0.5 + score / 2
        return score


def _mean(evaluations: Sequence[Evaluation]) -> float | None:
    """The weighted mean of the scores; None of nothing. It is 1 only where every score is, whatever the weights."""
    if not evaluations:
        return None
    scores = [evaluation.score or 0.0 for evaluation in evaluations]
    total = sum(evaluation.weight for evaluation in evaluations)
    mean = sum(evaluation.weight * score for evaluation, score in zip(evaluations, scores, strict=True)) / total
    return 1.0 if min(scores) == 1.0 else min(mean, math.nextafter(1.0, 0.0))


@dataclass(frozen=True, slots=True)
class Verification:
    """A question that a critic asked about a text, and the answer that the model gave without seeing the text."""

    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Remark:
    """One thing that the model says should change.

    ``criterion``: the name of the criterion that the text falls short of; None if the model named none. ``weight``: how
    much it counts, in [0, 1]: the probability of a fault times the criterion's share of the largest weight.
    """

    message: str
    criterion: str | None = None
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Critique:
    """Feedback in words about one candidate: what the evaluators found, and what the model adds to that.

    ``answered``: the model, if it was asked, came to an end; else no remarks do not mean that it found nothing.
    ``fault_probability``: how sure the model is that something is wrong, in [0, 1]; None if it was not asked, or did
    not answer the question. ``verifications``: what a factored critic went by.
    """

    candidate: str
    findings: tuple[str, ...]
    remarks: tuple[Remark, ...] = ()
    answered: bool = True
    fault_probability: float | None = None
    verifications: tuple[Verification, ...] = ()

    @property
    def issues(self) -> tuple[str, ...]:
        """All that should change; empty means nothing."""
        return self.findings + tuple(remark.message for remark in self.remarks)
