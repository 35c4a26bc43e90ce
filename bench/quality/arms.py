"""The ways of spending tokens that are compared. Each is a refine request but for its prompt and its rules."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

MOST_ROUNDS = 60
"""More than any budget pays for: the budget or a passing text ends a run, not the rounds."""


@dataclass(frozen=True)
class Arm:
    """``verified``: whether the loop sees the prompt's verifiers. ``request``: fields of a refine request."""

    label: str
    request: Mapping[str, Any]
    verified: bool = True


def _search(preset: str = "self_refine", **fields: Any) -> Mapping[str, Any]:
    return {"judge": False, "search": {"preset": preset, "rounds": MOST_ROUNDS, **fields}}


ARMS: Mapping[str, Arm] = MappingProxyType(
    {
        "single_draft": Arm("single draft", _search(rounds=0)),
        # Fresh drafts until one passes. One after the other, so that none is paid for that is not needed.
        "best_of_n": Arm("best of n", _search(carry="none", critic="none")),
        "judge_self_refine": Arm(
            "self-refine, judge only",
            {"judge": True, "search": {"preset": "self_refine", "critic": "model", "rounds": MOST_ROUNDS}},
            verified=False,
        ),
        "self_refine": Arm("self-refine", _search()),
        "beam": Arm("beam", _search("beam")),
        "adaptive": Arm("adaptive", _search("adaptive")),
    }
)
"""By name. ``single_draft`` is the one that the others are measured against."""
