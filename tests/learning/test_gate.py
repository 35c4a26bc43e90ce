"""The gate: who is promoted and who is not, in simulated exams and one reason at a time."""

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

import pytest

from service.learning.gate import Arm, Judgement, Results, Section, judge

PROMPTS, SAMPLES, MARGIN = 200, 8, 0.05
LOG_ODDS_OF_FIVE_POINTS = 0.65
"""What has to be added to a prompt's log-odds so that the mean pass rate rises by five points."""


def pass_rates(draws: random.Random, gain: float, prompts: int = PROMPTS) -> tuple[list[float], list[float]]:
    """The shares of passing samples of two arms. The prompts' rates are distributed as a small model's on verifiable
    instructions, where many prompts never pass (docs/results/log.md)."""
    before, after = [], []
    for _ in range(prompts):
        rate = min(max(draws.betavariate(0.21, 1.29), 1e-9), 1 - 1e-9)
        raised = 1 / (1 + math.exp(-math.log(rate / (1 - rate)) - gain))
        before.append(sum(draws.random() < rate for _ in range(SAMPLES)) / SAMPLES)
        after.append(sum(draws.random() < raised for _ in range(SAMPLES)) / SAMPLES)
    return before, after


def section(before: Sequence[float], after: Sequence[float], bad: float = 0.1, tokens: float = 60) -> Section:
    return Section(Arm(before, 0.1, 60), Arm(after, bad, tokens))


def sit(draws: random.Random, gain: float, attempt: int = 1) -> Judgement:
    """The verdict of one simulated exam. On other kinds of rules the candidate is as good as the incumbent."""
    results = Results(section(*pass_rates(draws, gain)), section(*pass_rates(draws, 0.0)))
    return judge(results, margin=MARGIN, attempt=attempt)


def test_the_incumbent_itself_is_seldom_promoted() -> None:
    draws = random.Random(1)
    assert fmean(sit(draws, 0.0).decision == "promote" for _ in range(1_000)) <= 0.05


def test_nor_is_it_over_twenty_attempts_together() -> None:
    draws = random.Random(2)
    campaigns = [any(sit(draws, 0.0, n).decision == "promote" for n in range(1, 21)) for _ in range(50)]
    assert fmean(campaigns) <= 0.05


def test_a_gain_of_five_points_is_promoted() -> None:
    draws = random.Random(3)
    before, after = pass_rates(draws, LOG_ODDS_OF_FIVE_POINTS, 20_000)
    assert fmean(after) - fmean(before) == pytest.approx(0.05, abs=0.005)

    assert fmean(sit(draws, LOG_ODDS_OF_FIVE_POINTS).decision == "promote" for _ in range(300)) >= 0.8


def test_a_loss_on_other_kinds_of_rules_is_not_promoted() -> None:
    draws = random.Random(4)

    def decide() -> str:
        other = pass_rates(draws, LOG_ODDS_OF_FIVE_POINTS)[::-1]
        return judge(Results(section(*pass_rates(draws, 1.0)), section(*other)), margin=0.02).decision

    assert fmean(decide() == "promote" for _ in range(200)) <= 0.05


@pytest.fixture
def good() -> Results:
    """Results that are promoted."""
    found = Results(section([0.1] * 100, [0.6] * 100), section([0.4, 0.6] * 100, [0.6, 0.4] * 100))
    assert judge(found, margin=0.1).decision == "promote"
    return found


@pytest.mark.parametrize(
    ("fields", "decision", "reason"),
    [
        ({"mismatch": "the base has changed"}, "invalid", "the base has changed"),
        ({"failed": 0.02}, "invalid", "2.0% of the answers"),
        ({"agreement": 0.5}, "invalid", "only 50% of the tokens"),
        ({"other": section([], [])}, "invalid", "has no prompts"),
        ({"differs": False}, "broken", "nothing was trained"),
        ({"trained": section([0.1] * 100, [0.6] * 100, bad=0.9)}, "broken", "90% of the texts"),
        ({"trained": section([0.6] * 100, [0.1] * 100)}, "reject", "worse on trained kinds"),
        ({"other": section([0.9] * 100, [0.2] * 100)}, "reject", "worse on other kinds"),
        ({"trained": section([0.1] * 100, [0.6] * 100, bad=0.2)}, "reject", "10.0% more texts"),
        ({"trained": section([0.1] * 100, [0.6] * 100, tokens=20)}, "reject", "0.33 times the tokens"),
        ({"trained": section([0.2] * 100, [0.2] * 100)}, "reject", "not better"),
        ({"trained": section([0.1] * 3, [0.6] * 3)}, "inconclusive", "better on trained kinds of rules: not shown"),
        ({"other": section([0.5] * 3, [0.5] * 3)}, "inconclusive", "other kinds: not shown"),
    ],
)
def test_each_fault_has_its_verdict_and_its_reason(
    good: Results, fields: dict[str, object], decision: str, reason: str
) -> None:
    found = judge(replace(good, **fields), margin=0.1)  # type: ignore[arg-type]

    assert found.decision == decision
    assert reason in " ".join(found.reasons)


def test_an_exam_that_goes_on_is_not_rejected_for_a_share_that_may_still_change(good: Results) -> None:
    worse = replace(good, trained=section([0.2] * 10, [0.2] * 10, bad=0.2), complete=False)

    assert judge(worse, margin=0.1).decision == "inconclusive"
