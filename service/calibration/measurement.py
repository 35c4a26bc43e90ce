"""What a judge's scores of labelled pairs say about the judge: its trust, and what its scores mean.

The trust follows from the share of pairs that the judge ranks rightly, and from that share's 95 % interval (Wilson
1927). What a score means is a logistic map to the probability that a text is wrong (Platt 1999, "Probabilistic outputs
for support vector machines", with his targets, which keep a judge that never errs on the pairs from looking certain).
There are as many right replies as wrong ones in the pairs, so the probability is that of a text of which as much is
known before as of the toss of a coin.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.refinement.trust import JudgeTrust, TrustLevel

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Source = Literal["calibrated", "built_in"]

Z = 1.96
"""Of a 95 % interval."""
DRIVE_SHARE, DRIVE_LEAST = 0.85, 2 / 3
"""The share of pairs that a judge must rank rightly to drive the loop, and the least that its interval may reach."""
CHANCE = 0.5
"""What the toss of a coin ranks rightly. A judge whose interval reaches it decides nothing."""
SURE = 0.1
"""The probability that a text is wrong below which nobody needs to be asked what is wrong with it."""
STEPS, STEEPEST = 50, 200.0


@dataclass(frozen=True, slots=True)
class ScoredPair:
    """A judge's scores of a right and of a wrong reply, each in [0, 1]; None where it abstained."""

    right: float | None
    wrong: float | None

    @property
    def gap(self) -> float | None:
        """How much higher the right one is scored."""
        return None if self.right is None or self.wrong is None else self.right - self.wrong


class ScoreMap(BaseModel):
    """What a score means: the log-odds that a text is wrong are ``slope`` times the score's distance from ``neutral``.

    A judge that ranks has a negative slope.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    slope: float
    neutral: float

    def wrong(self, score: float) -> float:
        """The probability that a text with this score is wrong."""
        return _logistic(self.slope * (score - self.neutral))

    def score_of(self, wrong: float) -> float | None:
        """The score from which on a text is wrong with at most this probability; None if no score in [0, 1] is."""
        if self.slope >= 0.0:
            return None
        score = self.neutral + math.log(wrong / (1 - wrong)) / self.slope
        return max(score, 0.0) if score <= 1.0 else None


class Measurement(BaseModel):
    """What was measured of a judge, as it is stored.

    judge: the digest of its weights and its prompts. model: its name at the time.
    pairs, ranked_rightly, abstained: how many pairs there were, in how many the right reply was scored higher, and in
    how many the judge gave no score. A tie is not ranked rightly.
    low, high: the 95 % interval of the share that was ranked rightly. mean_gap: of the scores, right less wrong.
    level: the trust that follows. map: what a score means; None if there were too few scores.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    format: Literal[1] = 1
    judge: str
    model: str
    source: Source
    pairs: Annotated[int, Field(ge=1)]
    ranked_rightly: Annotated[int, Field(ge=0)]
    abstained: Annotated[int, Field(ge=0)]
    low: Share
    high: Share
    mean_gap: float | None
    level: TrustLevel
    map: ScoreMap | None

    @property
    def share(self) -> float:
        return self.ranked_rightly / self.pairs

    @property
    def trust(self) -> JudgeTrust:
        return JudgeTrust(self.level, self.share, self.source)

    @property
    def silence(self) -> float | None:
        """The score from which on a text is so likely right that a critic has nothing to add; None if no score is."""
        return None if self.map is None else self.map.score_of(SURE)


def measure(scored: Sequence[ScoredPair], *, judge: str, model: str, source: Source) -> Measurement:
    """What the scores of at least one pair say of the judge with the digest ``judge`` and the name ``model``."""
    known = [gap for pair in scored if (gap := pair.gap) is not None]
    rightly = sum(gap > 0.0 for gap in known)
    low, high = interval(rightly, len(scored))
    return Measurement(
        judge=judge,
        model=model,
        source=source,
        pairs=len(scored),
        ranked_rightly=rightly,
        abstained=len(scored) - len(known),
        low=low,
        high=high,
        mean_gap=fmean(known) if known else None,
        level=_level(rightly / len(scored), low),
        map=fit(
            [pair.right for pair in scored if pair.right is not None],
            [pair.wrong for pair in scored if pair.wrong is not None],
        ),
    )


def interval(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % interval of a share, by Wilson's score method.

    >>> [round(end, 2) for end in interval(23, 24)]
    [0.8, 0.99]
    """
    share, spread = successes / trials, Z**2 / trials
    centre = (share + spread / 2) / (1 + spread)
    reach = Z * math.sqrt(share * (1 - share) / trials + spread / (4 * trials)) / (1 + spread)
    return min(share, max(0.0, centre - reach)), max(share, min(1.0, centre + reach))


def fit(right: Sequence[float], wrong: Sequence[float]) -> ScoreMap | None:
    """The logistic map under which the scores of right and of wrong replies are likeliest, by Newton's method.

    None without both kinds, or if all scores are the same.
    """
    scores = [*right, *wrong]
    if not right or not wrong or min(scores) == max(scores):
        return None
    high, low = (len(wrong) + 1) / (len(wrong) + 2), 1 / (len(right) + 2)
    targets = [*[low] * len(right), *[high] * len(wrong)]
    middle = fmean(scores)
    slope, bias = 0.0, 0.0
    for _ in range(STEPS):
        found = [_logistic(slope * (score - middle) + bias) for score in scores]
        errors = [p - target for p, target in zip(found, targets, strict=True)]
        weights = [p * (1 - p) + 1e-9 for p in found]
        by_slope = math.fsum(e * (score - middle) for e, score in zip(errors, scores, strict=True))
        by_bias = math.fsum(errors)
        squared = math.fsum(w * (score - middle) ** 2 for w, score in zip(weights, scores, strict=True)) + 1e-9
        crossed = math.fsum(w * (score - middle) for w, score in zip(weights, scores, strict=True))
        whole = math.fsum(weights)
        determinant = squared * whole - crossed**2
        slope = max(-STEEPEST, min(STEEPEST, slope - (whole * by_slope - crossed * by_bias) / determinant))
        bias = max(-STEEPEST, min(STEEPEST, bias - (squared * by_bias - crossed * by_slope) / determinant))
    return ScoreMap(slope=slope, neutral=middle - bias / slope) if slope else None


def _logistic(log_odds: float) -> float:
    return 1.0 / (1.0 + math.exp(-max(-500.0, min(500.0, log_odds))))


def _level(share: float, low: float) -> TrustLevel:
    if share >= DRIVE_SHARE and low > DRIVE_LEAST:
        return "drive"
    return "break_ties" if low > CHANCE else "none"
