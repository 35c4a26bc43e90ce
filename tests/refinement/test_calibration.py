"""From what a model shows to the probability of a fault."""

import math

import pytest

from service.refinement.calibration import Calibration, Evidence, Scale

NOTHING = Scale(0.0, 0.0)
READ = Calibration(
    departure=Scale(0.5, 4.0),
    approval=Scale(-1.0, 1.0),
    compared=Scale(-2.0, 1.0),
    compared_departure=Scale(1.0, math.log(5.0)),
    judged=Scale(-4.0, 0.5),
)


@pytest.mark.parametrize(
    ("evidence", "probability"),
    [
        (Evidence(departure=4.0), 0.5),
        (Evidence(departure=6.0), 0.731),
        (Evidence(approval=2.0), 0.269),
        (Evidence(compared=1.5), 0.269),
        (Evidence(judged=0.75), 0.269),
        (Evidence(departure=0.0, compared=1.0), 1 / 6),
        (Evidence(departure=4.0, compared=1.0), 0.5),
        (Evidence(departure=9.0, compared=1.0), 2 / 3),
        (Evidence(departure=6.0, approval=2.0), 0.5),
        (Evidence(departure=6.0, approval=0.0, judged=0.25), 0.953),
        (Evidence(approval=-1e9), 1.0),
        (Evidence(approval=1e9), 0.0),
    ],
)
def test_the_evidence_adds_up(evidence: Evidence, probability: float) -> None:
    assert READ.fault_probability(evidence) == pytest.approx(probability, abs=5e-4)


def test_without_evidence_there_is_no_probability() -> None:
    assert READ.fault_probability(Evidence()) is None


def test_what_has_no_slope_is_no_evidence() -> None:
    deaf = Calibration(departure=NOTHING, approval=Scale(-1.0, 0.0), judged=NOTHING)

    assert deaf.fault_probability(Evidence(departure=20.0, judged=0.0)) is None
    assert deaf.fault_probability(Evidence(departure=20.0, approval=0.0, judged=0.0)) == 0.5
