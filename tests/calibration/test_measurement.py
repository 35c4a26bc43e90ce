"""What follows from a judge's scores of labelled pairs."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.calibration.measurement import Measurement, ScoredPair, ScoreMap, fit, interval, measure
from service.refinement.trust import JudgeTrust, TrustLevel

RIGHTLY, WRONGLY, TIED, ABSTAINED = (
    ScoredPair(0.8, 0.2),
    ScoredPair(0.2, 0.8),
    ScoredPair(0.5, 0.5),
    ScoredPair(None, 0.5),
)
SCORES = st.floats(0.0, 1.0)


def measured(*scored: ScoredPair) -> Measurement:
    return measure(scored, judge="d", model="m", source="built_in")


@pytest.mark.parametrize(
    ("rightly", "wrongly", "level"),
    [
        (24, 0, "drive"),
        (21, 3, "drive"),
        (20, 4, "break_ties"),
        (17, 7, "break_ties"),
        (16, 8, "none"),
        (12, 12, "none"),
        (0, 24, "none"),
        (5, 0, "break_ties"),
        (3, 0, "none"),
        (170, 30, "drive"),
        (169, 31, "break_ties"),
    ],
)
def test_the_trust_follows_from_the_share_and_its_interval(rightly: int, wrongly: int, level: TrustLevel) -> None:
    found = measured(*[RIGHTLY] * rightly, *[WRONGLY] * wrongly)

    assert found.level == level
    assert found.trust == JudgeTrust(level, rightly / (rightly + wrongly), "built_in")


def test_a_tie_and_an_abstention_are_not_ranked_rightly() -> None:
    found = measured(RIGHTLY, TIED, ABSTAINED)

    assert (found.pairs, found.ranked_rightly, found.abstained) == (3, 1, 1)
    assert found.mean_gap == pytest.approx(0.3)


def test_a_judge_that_always_abstains_is_not_trusted() -> None:
    found = measured(*[ScoredPair(None, None)] * 24)

    assert (found.level, found.share, found.mean_gap, found.map, found.silence) == ("none", 0.0, None, None, None)


def test_the_interval_is_wilson_s() -> None:
    assert interval(11, 12) == pytest.approx((0.6461, 0.9851), abs=1e-4)  # as statsmodels computes it
    assert interval(0, 10)[0] == 0.0
    assert interval(10, 10)[1] == 1.0


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_holds_the_share(counts: tuple[int, int]) -> None:
    successes, trials = counts
    low, high = interval(successes, trials)
    assert 0.0 <= low <= successes / trials <= high <= 1.0


@pytest.mark.parametrize(("slope", "neutral"), [(-6.0, 0.6), (-20.0, 0.4), (-2.0, 0.5)])
def test_the_map_is_that_of_which_the_scores_were_drawn(slope: float, neutral: float) -> None:
    draws, truth = random.Random(1), ScoreMap(slope=slope, neutral=neutral)
    right, wrong = list[float](), list[float]()
    for _ in range(4_000):
        score = draws.random()
        (wrong if draws.random() < truth.wrong(score) else right).append(score)

    found = fit(right, wrong)

    assert found is not None
    assert found.slope == pytest.approx(slope, rel=0.2)
    assert found.neutral == pytest.approx(neutral, abs=0.03)


@given(st.lists(SCORES, min_size=1, max_size=30), st.lists(SCORES, min_size=1, max_size=30))
def test_the_map_gives_probabilities_whatever_the_scores(right: list[float], wrong: list[float]) -> None:
    found = fit(right, wrong)
    if found is not None:
        assert all(0.0 <= found.wrong(score) <= 1.0 for score in (*right, *wrong))


def test_scores_that_are_all_the_same_mean_nothing() -> None:
    assert fit([0.5, 0.5], [0.5]) is None
    assert fit([0.5], []) is None


def test_silence_begins_where_a_text_is_surely_right() -> None:
    sure = ScoreMap(slope=-10.0, neutral=0.5)

    score = sure.score_of(0.1)

    assert score == pytest.approx(0.7197, abs=1e-4)
    assert score is not None
    assert sure.wrong(score) == pytest.approx(0.1)


@pytest.mark.parametrize("found", [ScoreMap(slope=-2.0, neutral=0.5), ScoreMap(slope=3.0, neutral=0.5)])
def test_a_judge_that_is_never_sure_asks_for_no_silence(found: ScoreMap) -> None:
    assert found.score_of(0.1) is None


def test_what_was_measured_survives_its_file() -> None:
    found = measured(RIGHTLY, WRONGLY, ABSTAINED)

    assert Measurement.model_validate_json(found.model_dump_json()) == found
