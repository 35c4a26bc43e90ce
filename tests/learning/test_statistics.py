"""The bets of the exam's statistics keep their promise under repeated looks, and find a gain that is there."""

import math
import random
from statistics import fmean

import pytest

from service.learning.statistics import interval, is_above, largest_capital, spend

MOST_WRONG = 0.05 + 3 * math.sqrt(0.05 * 0.95 / 1_000)
"""Of 1,000 simulations, within three standard errors: some bets are as bold as the promise allows."""


def test_a_mean_of_zero_is_seldom_taken_for_a_gain_however_often_one_looks() -> None:
    draws = random.Random(1)
    found = [
        is_above([draws.choice((-0.5, 0.0, 0.5)) for _ in range(300)], least=0.0, alpha=0.05) for _ in range(1_000)
    ]
    assert fmean(found) <= MOST_WRONG


@pytest.mark.parametrize("rare", [-1.0, 1.0])
def test_rare_large_differences_do_not_break_the_promise(rare: float) -> None:
    """A mean of zero that is made of one large difference among many small ones of the other sign."""
    draws = random.Random(2)
    found = [
        is_above([rare if draws.random() < 0.05 else -rare / 19 for _ in range(300)], least=0.0, alpha=0.05)
        for _ in range(1_000)
    ]
    assert fmean(found) <= MOST_WRONG


def test_a_clear_gain_is_found_and_a_loss_is_not() -> None:
    draws = random.Random(3)
    gains = [0.3 + draws.uniform(-0.5, 0.5) for _ in range(100)]
    assert is_above(gains, least=0.0, alpha=0.01)
    assert not is_above([-gain for gain in gains], least=0.0, alpha=0.5)


def test_more_prompts_never_take_back_what_was_shown() -> None:
    draws = random.Random(4)
    values = [draws.uniform(-0.4, 0.6) for _ in range(200)]
    capitals = [largest_capital(values[:count], 0.0, 1e-9) for count in range(0, 200, 10)]
    assert capitals == sorted(capitals)
    assert capitals[0] == 1.0


def test_all_attempts_share_alpha() -> None:
    shares = [spend(0.05, attempt) for attempt in range(1, 1_000)]
    assert shares == sorted(shares, reverse=True)
    assert math.fsum(shares) < 0.05


def test_the_interval_holds_the_mean_and_narrows_with_more_prompts() -> None:
    draws = random.Random(5)
    values = [draws.uniform(-1, 1) for _ in range(400)]
    few, many = interval(values[:40]), interval(values)
    assert many.low < fmean(values) == many.mean < many.high
    assert many.high - many.low < few.high - few.low
    assert interval(values) == many
