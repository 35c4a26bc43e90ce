"""How far a judge's word goes in the loop."""

from dataclasses import dataclass
from typing import Literal

TrustLevel = Literal["drive", "break_ties", "none"]
"""What a judge may do, each level what the next one may do and more. policy.py says what follows.

- drive: have texts revised that no verifier finds fault with
- break_ties: choose between candidates that the verifiers cannot distinguish
- none: give scores, which are reported and decide nothing
"""

TrustSource = Literal["calibrated", "built_in", "unknown"]
"""How the level is known: from the operator's pairs, from the built-in ones, or not at all; then it is ``drive``."""


@dataclass(frozen=True, slots=True)
class JudgeTrust:
    """What is known of a model as a judge.

    level: what it may do.
    share: of the pairs of a right and a wrong reply, how many it ranked rightly, in [0, 1]; None if not measured.
    source: how that is known.
    """

    level: TrustLevel = "drive"
    share: float | None = None
    source: TrustSource = "unknown"


UNKNOWN = JudgeTrust()
"""Of a judge that was not measured. It may drive the loop."""
