"""The gate: who is promoted and who is not, in simulated exams and one reason at a time."""

import math
import random
from dataclasses import replace
from functools import cache
from statistics import fmean

import pytest

from service.learning.exam import CLIPPED_AT
from service.learning.gate import Judgement, Part, Results, Texts, judge
from service.learning.recipe import load_recipe

EXAM = load_recipe("full").examining
PROMPTS, SAMPLES = EXAM.prompts, EXAM.samples
"""Of the parts with single drafts. The others are smaller (``further_parts``)."""
STATED, HIDDEN = (0.21, 1.29), (0.6, 0.45)
"""How the pass rates of prompts are distributed (Beta). Many prompts never pass by their stated rules, as with a small
model on verifiable instructions (docs/results/log.md), and hidden rules are followed in 57 %."""
LOG_ODDS_OF_FIVE_POINTS = 0.65
"""What has to be added to a prompt's log-odds so that the mean pass rate rises by five points."""


def pass_rates(
    draws: random.Random,
    gain: float,
    prompts: int = PROMPTS,
    samples: int = SAMPLES,
    rates: tuple[float, float] = STATED,
) -> tuple[list[float], list[float]]:
    """The shares of passing samples of two arms."""
    before, after = [], []
    for _ in range(prompts):
        rate = min(max(draws.betavariate(*rates), 1e-9), 1 - 1e-9)
        raised = 1 / (1 + math.exp(-math.log(rate / (1 - rate)) - gain))
        before.append(sum(draws.random() < rate for _ in range(samples)) / samples)
        after.append(sum(draws.random() < raised for _ in range(samples)) / samples)
    return before, after


def weighed(draws: random.Random, shift: float = 0.0) -> tuple[list[float], list[float]]:
    """Log-likelihoods of texts, each of which an adapter changes by a little."""
    before = [draws.gauss(-2.5, 0.5) for _ in range(40)]
    return before, [value + draws.gauss(shift, 0.05) for value in before]


def refined(draws: random.Random) -> tuple[list[float], list[float]]:
    """Whether the loop's texts pass, as if each were the best of eight drafts."""
    assert EXAM.refine
    before, after = pass_rates(draws, 0.0, EXAM.refine.prompts)
    return [float(share > 0) for share in before], [float(share > 0) for share in after]


@cache
def further_parts(number: int) -> dict[str, Part]:
    """The parts besides the first, where the candidate is as good as the incumbent."""
    draws, margins = random.Random(f"further {number}"), EXAM.margins
    return {
        "other": Part(*pass_rates(draws, 0.0), margin=margins["other"]),
        "hidden": Part(*pass_rates(draws, 0.0, rates=HIDDEN), margin=margins["hidden"]),
        "plain": Part(*weighed(draws), margin=margins["plain"], bound=CLIPPED_AT * margins["plain"], unit="nats"),
        "refine": Part(*refined(draws), margin=margins["refine"]),
    }


def texts(draws: random.Random) -> Texts:
    """Of which a tenth is bad, but for the luck of the draw."""
    count = 2 * PROMPTS * SAMPLES
    return Texts(count, round(draws.gauss(0.1 * count, math.sqrt(0.09 * count))), 60 * count)


def sit(draws: random.Random, gain: float, attempt: int = 1) -> Judgement:
    """The verdict of one simulated exam, of which the further parts are one of fifty."""
    trained, others = Part(*pass_rates(draws, gain)), further_parts(draws.randrange(50))
    return judge(Results(trained, others, texts(draws), texts(draws)), attempt=attempt)


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


def test_a_loss_of_more_than_the_margin_in_one_part_is_not_promoted() -> None:
    draws = random.Random(4)

    def decide(part: str) -> str:
        worse = {
            "hidden": Part(*pass_rates(draws, LOG_ODDS_OF_FIVE_POINTS)[::-1], margin=0.02),
            "plain": Part(*weighed(draws, shift=-0.06), margin=0.05, bound=0.25, unit="nats"),
        }
        return judge(make(Part(*pass_rates(draws, 1.0)), **{part: worse[part]})).decision

    for part in ("hidden", "plain"):
        assert fmean(decide(part) == "promote" for _ in range(200)) <= 0.05


def test_a_candidate_that_pleases_the_stated_verifiers_alone_is_refused() -> None:
    draws = random.Random(5)
    gamed = Part([0.7] * 100, [0.2] * 100, margin=0.1)
    verdict = judge(make(Part(*pass_rates(draws, 2.0)), hidden=gamed))

    assert verdict == Judgement("reject", ("hidden rules: shown to be worse by more than 10%",))


BETTER = Part([0.1] * 100, [0.6] * 100)
EVEN = Part([0.4, 0.6] * 100, [0.6, 0.4] * 100, margin=0.1)
USUAL = Texts(1_000, 100, 60_000)


def make(trained: Part = BETTER, other: Part = EVEN, **others: Part) -> Results:
    return Results(trained, {"other": other, **others}, USUAL, USUAL)


@pytest.fixture
def good() -> Results:
    """Results that are promoted."""
    assert judge(make()).decision == "promote"
    return make()


@pytest.mark.parametrize(
    ("fields", "decision", "reason"),
    [
        ({"failed": 0.03}, "invalid", "3.0% of the texts could not be refined"),
        ({"agreement": 0.5}, "invalid", "only 50% of the tokens"),
        ({"others": {"other": Part([], [], 0.1)}}, "invalid", "other kinds of rules: the exam has no prompts"),
        ({"differs": False}, "broken", "nothing was trained"),
        ({"candidate": replace(USUAL, bad=900)}, "broken", "90% of the texts"),
        ({"trained": Part([0.6] * 100, [0.1] * 100)}, "reject", "trained kinds of rules: shown to be worse"),
        ({"others": {"other": Part([0.9] * 100, [0.2] * 100, 0.1)}}, "reject", "worse by more than 10%"),
        ({"others": {"plain": Part([-2.0] * 40, [-9.0] * 40, 0.1, 0.5, "nats")}}, "reject", "than 0.1 nats a token"),
        ({"candidate": replace(USUAL, bad=200)}, "reject", "10.0% more texts"),
        ({"candidate": replace(USUAL, tokens=20_000)}, "reject", "0.33 times the tokens"),
        ({"trained": Part([0.2] * 100, [0.2] * 100)}, "reject", "not better"),
        ({"trained": Part([0.1] * 3, [0.6] * 3)}, "inconclusive", "better on trained kinds of rules: not shown"),
        ({"others": {"other": Part([0.5] * 3, [0.5] * 3, 0.1)}}, "inconclusive", "at most 10% worse: not shown"),
        ({"others": {"plain": Part([-2.0] * 3, [-2.0] * 3, 0.1, 0.5, "nats")}}, "inconclusive", "nats a token worse"),
        ({}, "promote", "hidden rules: not examined other kinds of rules"),
        ({}, "promote", "worse: shown texts without rules: not examined"),
    ],
)
def test_each_fault_has_its_verdict_and_its_reason(
    good: Results, fields: dict[str, object], decision: str, reason: str
) -> None:
    found = judge(replace(good, **fields))  # type: ignore[arg-type]

    assert found.decision == decision
    assert reason in " ".join(found.reasons)


@pytest.mark.parametrize("fields", [{"trained": Part([0.2] * 10, [0.2] * 10)}, {"candidate": replace(USUAL, bad=200)}])
def test_an_exam_that_goes_on_neither_rejects_nor_promotes_for_what_may_still_change(
    good: Results, fields: dict[str, object]
) -> None:
    found = judge(replace(good, complete=False, **fields))  # type: ignore[arg-type]

    assert found.decision == "inconclusive"


def test_a_difference_counts_for_no_more_than_its_bound() -> None:
    outlier = Part([-2.0] * 39 + [-2.0], [-2.0] * 39 + [-30.0], margin=0.1, bound=0.5, unit="nats")

    assert min(outlier.differences) == -0.5
    assert judge(make(plain=outlier)).decision == "promote"
