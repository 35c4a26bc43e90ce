"""How a model's opinions are read: from what it shows to the probability of a fault, and from that to silence."""

import math
from dataclasses import dataclass

LARGE = 50.0
"""Log-odds beyond it are as good as certainty."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of one text. None for what was not asked or not answered.

    departure: the size of the largest departure from what the model would have written, in nats.
    approval: the log-odds of Yes as the critic's answer to whether the text is right.
    compared: the same, once the critic has answered the request itself. The departure is then the smaller of two: as an
        answer, and as the critic's own answer in other words.
    judged: the judges' score, in [0, 1].
    """

    departure: float | None = None
    approval: float | None = None
    compared: float | None = None
    judged: float | None = None


@dataclass(frozen=True, slots=True)
class Scale:
    """What one kind of evidence adds to the log-odds of a fault: ``slope`` for each unit above ``neutral``.

    With a slope of 0 it is no evidence.
    """

    slope: float
    neutral: float

    def log_odds(self, value: float | None) -> float | None:
        """None for a value that says nothing."""
        return None if value is None or self.slope == 0.0 else self.slope * (value - self.neutral)


@dataclass(frozen=True, slots=True)
class Calibration:
    """A logistic map from evidence to the probability that a text has a fault, and what follows from it.

    departure, approval, compared, judged: the scales of the kinds of evidence.
    compared_departure: that of a departure in place of the first one, if the critic has answered the request itself. It
        takes log(1 + size), because whether somebody else's text departs at all says more than how far.
    silence: the largest probability of a fault at which the critic says nothing.
    certainty: the largest probability of a fault, by the judges alone, at which no critic is asked.

    The defaults are those of Qwen2.5-Coder-1.5B-Instruct (docs/results/critic.md). A judge's score counts only if the
    operator has calibrated the judge: by default its slope is 0.

    >>> Calibration(approval=Scale(-1.0, 0.5)).fault_probability(Evidence(approval=0.5))
    0.5
    """

    departure: Scale = Scale(0.15, 6.1)
    approval: Scale = Scale(-0.7, 1.0)
    compared: Scale = Scale(-1.2, 0.9)
    compared_departure: Scale = Scale(0.9, math.log1p(6.1))
    judged: Scale = Scale(0.0, 0.0)
    silence: float = 0.5
    certainty: float = 0.1

    def fault_probability(self, evidence: Evidence) -> float | None:
        """None if nothing that is known of the text is evidence."""
        terms = (
            self._departure(evidence),
            self.approval.log_odds(evidence.approval),
            self.compared.log_odds(evidence.compared),
            self.judged.log_odds(evidence.judged),
        )
        known = [term for term in terms if term is not None]
        return 1.0 / (1.0 + math.exp(-max(-LARGE, min(LARGE, sum(known))))) if known else None

    def _departure(self, evidence: Evidence) -> float | None:
        if evidence.departure is None or evidence.compared is None:
            return self.departure.log_odds(evidence.departure)
        return self.compared_departure.log_odds(math.log1p(evidence.departure))
