"""A model's opinion, read from its probabilities instead of from the text it writes.

Each criterion is one call in a fresh context: the task, the candidate between two lines of a secret delimiter, and the
criterion's question. The answer is one digit. The score is the probability-weighted mean over the digits (G-Eval, Liu
et al. 2023, arXiv 2303.16634, section 2), and the spread of that distribution is the standard error. If too little
probability falls on digits, the model did not answer the question, and the judge abstains.

A model may prefer a digit whatever it means. Where the operator wants it, each question is asked again with the scale
reversed, and the two distributions are averaged, which cancels such a preference.
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

DIGITS = ("1", "2", "3", "4", "5")
LEAST_MASS = 0.8
"""The least probability on digits for which a score counts."""


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """One line of a rubric: a question about the candidate that a high digit affirms."""

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
        score, stderr = _combine(self.criteria, scores)
        return Evaluation.from_evaluator(self, score, criteria=tuple(scores), stderr=stderr)


async def _score(criterion: Criterion, submission: Submission) -> CriterionScore:
    question = submission.judge_prompt.question(criterion.question)
    if submission.reversed_question is None:
        return weigh(criterion.name, await _digits(question, submission))
    denied = submission.reversed_question(criterion.question)
    up, down = await settle(_digits(each, submission) for each in (question, denied))
    return weigh(criterion.name, [(high + low) / 2 for high, low in zip(up, reversed(down), strict=True)])


async def _digits(question: str, submission: Submission) -> Sequence[float]:
    """The probabilities of the digits as the answer to a question about the candidate."""
    asked = submission.shown.with_user(question)
    choice = await submission.engine.call(Choose(asked, DIGITS, submission.judge_prompt.prefill))
    return [math.exp(logprob) for logprob in choice.logprobs]


def weigh(name: str, probabilities: Sequence[float]) -> CriterionScore:
    """The score that follows from the digits' probabilities, which need not sum to one."""
    mass = math.fsum(probabilities)
    if mass < LEAST_MASS:
        return CriterionScore(name, None, None, mass)
    values = [index / (len(DIGITS) - 1) for index in range(len(DIGITS))]
    mean = math.fsum(p * value for p, value in zip(probabilities, values, strict=True)) / mass
    variance = math.fsum(p * (value - mean) ** 2 for p, value in zip(probabilities, values, strict=True)) / mass
    return CriterionScore(name, mean, math.sqrt(variance), mass)


def _combine(criteria: Sequence[Criterion], scores: Sequence[CriterionScore]) -> tuple[float | None, float | None]:
    """The weighted mean and its standard error, as if the criteria's errors were independent."""
    known = [
        (criterion.weight, score.score, score.stderr)
        for criterion, score in zip(criteria, scores, strict=True)
        if score.score is not None and score.stderr is not None
    ]
    if not known:
        return None, None
    total = math.fsum(weight for weight, _, _ in known)
    mean = math.fsum(weight * score for weight, score, _ in known) / total
    return mean, math.sqrt(math.fsum((weight * stderr) ** 2 for weight, _, stderr in known)) / total
