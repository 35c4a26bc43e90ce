"""A model's opinion, read from its probabilities instead of from the text it writes.

Each criterion is one call in a fresh context: the task, the candidate between two lines of a secret delimiter, and the
criterion's question. The answer is Yes or No, and the criterion's score is the probability of a Yes. If too little
probability falls on these two, the model did not answer the question, and the judge abstains.

A small model says yes to most texts as a whole, and sees a wrong word only where it would have written another one. So
the largest such departure lowers the score: by DEPARTURE_WEIGHT for each nat, on the scale of log-odds.

The standard error is measured, not assumed: by up to ERROR, the log-odds of a score change with what should not matter,
such as length, style, praise and padding (docs/results/log.md).

A model may prefer the answer that is named first. Where the operator wants it, each question is asked again with the
answers in the other order, and the probabilities are averaged, which cancels such a preference.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Len

from service.concurrency import settle
from service.engines.base import Choose
from service.evaluators.base import STRICT, Authority, CriterionScore, Evaluation, Submission, Weight
from service.evaluators.toolbox import Toolbox
from service.fail_fast import FAIL_FAST

ANSWERS = ("Yes", "No")
LEAST_MASS = 0.5
"""The least probability on the answers for which a score counts."""
DEPARTURE_WEIGHT = 0.1
"""By how much one nat of departure lowers the log-odds of the score."""
ERROR = 1.5
"""The error of a score's log-odds."""
LARGE = 20.0
"""Log-odds beyond it are as good as certainty."""


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """One line of a rubric: a question about the candidate that is answered with Yes if the candidate is good."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    name: Annotated[str, Len(1, 64)]
    question: Annotated[str, Len(1, 1000)]
    weight: Weight = 1.0


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Scores a candidate by the weighted mean of its criteria. Criteria on which it abstains are left out."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    authority: ClassVar[Authority] = "judge"
    hard: ClassVar[bool] = False

    type: Literal["judge"] = "judge"
    criteria: Annotated[tuple[Criterion, ...], Len(1, 16), FAIL_FAST]
    weight: Weight = 1.0

    def resolve(self, tools: Toolbox) -> "Judge":
        return self

    async def evaluate(self, submission: Submission) -> Evaluation:
        scores = await settle(_score(criterion, submission) for criterion in self.criteria)
        approval = _mean(self.criteria, scores)
        if approval is None:
            return Evaluation.from_evaluator(self, None, criteria=tuple(scores))
        score = _shift(approval, -DEPARTURE_WEIGHT * (await submission.departure() or 0.0))
        return Evaluation.from_evaluator(self, score, criteria=tuple(scores), stderr=error_of(score))


async def _score(criterion: Criterion, submission: Submission) -> CriterionScore:
    question = submission.judge_prompt.question(criterion.question)
    if submission.reversed_question is None:
        return read(criterion.name, await _answers(question, submission))
    swapped = submission.reversed_question(criterion.question)
    found = await settle(_answers(each, submission) for each in (question, swapped))
    return read(criterion.name, [math.fsum(probabilities) / 2 for probabilities in zip(*found, strict=True)])


async def _answers(question: str, submission: Submission) -> Sequence[float]:
    """The probabilities of Yes and No as the answer to a question about the candidate."""
    asked = submission.shown.with_user(question)
    choice = await submission.engine.call(Choose(asked, ANSWERS, submission.judge_prompt.prefill))
    return [math.exp(logprob) for logprob in choice.logprobs]


def read(name: str, probabilities: Sequence[float]) -> CriterionScore:
    """The score that follows from the probabilities of Yes and No, which need not sum to one."""
    yes, no = probabilities
    mass = yes + no
    if mass < LEAST_MASS:
        return CriterionScore(name, None, None, mass)
    return CriterionScore(name, yes / mass, error_of(yes / mass), mass)


def error_of(score: float) -> float:
    """The standard error of a score: half of the interval that ERROR spans around its log-odds."""
    return (_shift(score, ERROR) - _shift(score, -ERROR)) / 2


def _mean(criteria: Sequence[Criterion], scores: Sequence[CriterionScore]) -> float | None:
    known = [
        (line.weight, found.score) for line, found in zip(criteria, scores, strict=True) if found.score is not None
    ]
    if not known:
        return None
    return math.fsum(weight * score for weight, score in known) / math.fsum(weight for weight, _ in known)


def _shift(probability: float, log_odds: float) -> float:
    """The probability whose log-odds are larger by as much."""
    if log_odds == 0.0:
        return probability
    least = 1.0 / (1.0 + math.exp(LARGE))
    bounded = min(max(probability, least), 1.0 - least)
    return 1.0 / (1.0 + math.exp(-log_odds) * (1.0 - bounded) / bounded)
