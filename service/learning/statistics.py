"""The exam's statistics. The unit is the prompt: a difference is the mean of the candidate's samples less that of the
incumbent's, for the same prompt and the same seeds, so that it is in [-1, 1].

``is_above`` may be looked at after each prompt, and the decision holds whenever the exam stops. It bets against the
hypothesis that the mean is at most ``least``: the capital of a gambler who stakes a share of it on each prompt is a
martingale if the hypothesis is true, and by Ville's inequality it ever reaches 1/alpha with a probability of at most
alpha (Waudby-Smith and Ramdas 2020, "Estimating means of bounded random variables by betting", arXiv 2010.09686,
section 4, whose predictable stakes these are). Differences are assumed to be exchangeable, which shuffled prompts are.

``interval`` is for the report alone, and decides nothing.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

RESAMPLES = 2_000
MOST_STAKE = 0.75
"""The largest share of the capital that one prompt can cost, so that none can ruin the gambler."""
_PRIOR_MEAN, _PRIOR_VARIANCE = 0.0, 0.05
"""What is supposed before the first prompt. It affects the power alone, never the validity."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its 95 % interval by the bootstrap over prompts."""

    mean: float
    low: float
    high: float

    def in_points(self) -> str:
        """As points of a hundred.

        >>> Interval(0.05, 0.012, 0.088).in_points()
        '+5.0 (+1.2 to +8.8)'
        """
        mean, low, high = (f"{100 * value:+.1f}" for value in (self.mean, self.low, self.high))
        return f"{mean} ({low} to {high})"


def spend(alpha: float, attempt: int) -> float:
    """The share of ``alpha`` for the n-th attempt at the same exam, counted from 1. All attempts share it.

    >>> round(sum(spend(0.05, attempt) for attempt in range(1, 10_000)), 4)
    0.05
    """
    return alpha * 6 / (math.pi**2 * attempt**2)


def is_above(differences: Sequence[float], *, least: float, alpha: float) -> bool:
    """Whether the mean is shown to be above ``least``.

    differences: in [-1, 1], in the order in which they came. least: in (-1, 1). alpha: the most probability of a yes
    where it is wrong, however often one looks.
    """
    return largest_capital(differences, least, alpha) >= 1 / alpha


def largest_capital(differences: Sequence[float], least: float, alpha: float) -> float:
    """The most that a gambler who begins with 1 ever has, and who stops at 1/alpha."""
    goal = -math.log(alpha)
    most = MOST_STAKE / (1.0 + least)  # a difference is never below -1
    total, squares = _PRIOR_MEAN, _PRIOR_VARIANCE
    logarithm = best = 0.0
    for count, difference in enumerate(differences, 1):
        variance = squares / count
        mean = total / count
        # The stake that makes capital grow fastest for this mean and variance, which only earlier prompts decide.
        gain = mean - least
        kelly = gain / (variance + gain * gain) if gain > 0 else 0.0
        steady = math.sqrt(2 * goal / (variance * count * math.log1p(count)))  # the paper's plug-in
        stake = max(0.0, min(most, max(kelly, steady)))
        logarithm += math.log1p(stake * (difference - least))
        best = max(best, logarithm)
        if best >= goal:
            break
        total += difference
        squares += (difference - total / (count + 1)) ** 2
    return math.exp(min(best, 700.0))


def interval(values: Sequence[float], *, seed: int = 0) -> Interval:
    """The mean and its 95 % interval, by resampling prompts. At least one value."""
    draws = random.Random(seed)  # noqa: S311 - nothing secret
    size = len(values)
    means = sorted(sum(draws.choices(values, k=size)) / size for _ in range(RESAMPLES))
    return Interval(fmean(values), means[int(0.025 * RESAMPLES)], means[int(0.975 * RESAMPLES) - 1])
