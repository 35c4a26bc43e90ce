"""What an assessment amounts to: passed or not, a rank, a score, a standard error."""

from collections.abc import Sequence

import pytest
from hypothesis import given

from service.evaluators.base import Evaluation
from service.refinement.candidate import Assessment, Critique, Rank, Remark
from tests.support.assessments import assessed_by_the_same, hard, judged, rank_of, soft


@given(assessed_by_the_same(least=2, most=2))
def test_the_score_never_contradicts_the_rank(pair: list[Assessment]) -> None:
    worse, better = sorted(pair, key=rank_of)
    if worse.score is not None and better.score is not None:
        assert worse.score <= better.score


@given(assessed_by_the_same(least=1, most=1))
def test_a_score_is_between_0_and_1_and_tells_a_failed_hard_verifier(one: list[Assessment]) -> None:
    [assessment] = one
    if assessment.score is None:
        return
    assert 0.0 <= assessment.score <= 1.0
    others = any(not evaluation.hard for evaluation in assessment.evaluations)
    if assessment.passed is False and others:
        assert assessment.score < 0.5
    if assessment.passed is True and others:
        assert assessment.score >= 0.5


@pytest.mark.parametrize(
    ("evaluations", "passed", "score", "rank"),
    [
        ([], None, None, Rank(None, None, None)),
        ([hard(1.0)], True, 1.0, Rank(1.0, None, None)),
        ([hard(0.5)], False, 0.5, Rank(0.5, None, None)),
        ([hard(1.0), hard(0.5)], False, 0.75, Rank(0.75, None, None)),
        ([hard(1.0, weight=3.0), hard(0.0)], False, 0.75, Rank(0.75, None, None)),
        ([soft(0.5)], None, 0.5, Rank(None, 0.5, None)),
        ([judged(0.3)], None, 0.3, Rank(None, None, 0.3)),
        ([hard(1.0), judged(0.6)], True, 0.8, Rank(1.0, None, 0.6)),
        ([hard(0.8), judged(0.6)], False, 0.4, Rank(0.8, None, 0.6)),
        ([hard(1.0), soft(1.0), judged(0.6)], True, 0.9, Rank(1.0, 1.0, 0.6)),
        ([hard(1.0), soft(0.4), judged(0.6)], True, 0.6, Rank(1.0, 0.4, 0.6)),
        ([hard(1.0), hard(None)], None, 0.5, Rank(0.5, None, None)),
        ([hard(0.0), hard(None)], False, 0.0, Rank(0.0, None, None)),
        ([hard(1.0), judged(None)], True, 0.5, Rank(1.0, None, 0.0)),
        ([hard(None), judged(None)], None, None, Rank(0.0, None, 0.0)),
    ],
)
def test_what_evaluations_amount_to(
    evaluations: Sequence[Evaluation], passed: bool | None, score: float | None, rank: Rank
) -> None:
    assessment = Assessment(evaluations)

    assert assessment.passed is passed
    assert assessment.score == (None if score is None else pytest.approx(score))
    assert assessment.rank == rank


@pytest.mark.parametrize(
    ("evaluations", "stderr"),
    [
        ([], 0.0),
        ([hard(1.0)], 0.0),
        ([judged(None)], 0.0),
        ([judged(0.5, 0.2)], 0.2),
        ([judged(0.5, 0.3), judged(0.5, 0.4)], 0.25),  # √(0.3² + 0.4²) / 2
        ([judged(0.5, 0.2, weight=3.0), judged(0.5, 0.8)], 0.25),  # √(0.6² + 0.8²) / 4
        ([judged(0.5, 0.2), judged(None)], 0.2),
    ],
)
def test_the_standard_error_is_that_of_the_weighted_mean(evaluations: Sequence[Evaluation], stderr: float) -> None:
    assert Assessment(evaluations).stderr == pytest.approx(stderr)


def test_a_critique_tells_findings_before_remarks() -> None:
    assert Critique("c0", ("too long",), (Remark("too dull"),)).issues == ("too long", "too dull")


def test_a_failed_hard_verifier_shows_in_the_rank_however_little_it_weighs() -> None:
    assessment = Assessment([hard(1.0, weight=1000.0), hard(0.0, weight=1e-15)])

    assert assessment.passed is False
    assert assessment.rank.hard is not None
    assert assessment.rank.hard < 1.0
