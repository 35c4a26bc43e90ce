"""Assessments for tests: made by hand, and by Hypothesis."""

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from service.evaluators.base import Evaluation
from service.refinement.candidate import Assessment


def hard(score: float | None, weight: float = 1.0) -> Evaluation:
    """A hard verifier's result; one without a score failed to run."""
    passed = None if score is None else score == 1.0
    return Evaluation("rule", "verifier", True, weight, passed, score)


def soft(score: float | None, weight: float = 1.0) -> Evaluation:
    return replace(hard(score, weight), evaluator="wish", hard=False)


def judged(score: float | None, stderr: float = 0.0, weight: float = 1.0, evaluator: str = "judge") -> Evaluation:
    """A judge's result; one without a score abstained."""
    known = None if score is None else stderr
    return Evaluation(evaluator, "judge", False, weight, None, score, stderr=known)


def rank_of(assessment: Assessment) -> tuple[float, float, float]:
    """The rank as a tuple that Python orders."""
    rank = assessment.rank
    return rank.hard or 0.0, rank.soft or 0.0, rank.judged or 0.0


def order_of(assessment: Assessment) -> tuple[float, float, bool, float]:
    """What candidates are ordered by."""
    hard, soft, judged = rank_of(assessment)
    return hard, soft, assessment.complete, judged


@st.composite
def assessed_by_the_same(draw: Any, least: int, most: int) -> list[Assessment]:
    """Assessments of several candidates, some of them cut, all by the same evaluators, some of which failed or
    abstained."""
    weights = st.floats(0.01, 1000.0)
    scores = st.none() | st.sampled_from([0.0, 0.5, 1.0]) | st.integers(0, 1000).map(lambda n: n / 1000)
    evaluators = draw(st.lists(st.tuples(st.sampled_from([hard, soft, judged]), weights), max_size=4))
    count = draw(st.integers(least, most))

    def assessment() -> Assessment:
        found = [replace(kind(draw(scores)), weight=weight) for kind, weight in evaluators]
        spread = [replace(e, stderr=draw(st.floats(0.0, 0.5))) if e.stderr is not None else e for e in found]
        return Assessment(tuple(spread), complete=draw(st.booleans()))

    return [assessment() for _ in range(count)]
