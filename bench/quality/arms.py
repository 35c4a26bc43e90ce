"""The ways of spending tokens that are compared.

Each is a refine request but for its prompt and its rules. Only asking again is a loop of its own (asking.py), as an
application would write it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from service.refinement.trust import UNKNOWN, JudgeTrust

MOST_ROUNDS = 60
"""More than any budget pays for: the budget or a passing text ends a run, not the rounds."""
UNAIDED: Mapping[str, Any] = MappingProxyType({"constraints": "off", "repairs": False, "aborts": False})
"""Rules reach the model in words only."""


@dataclass(frozen=True)
class Arm:
    """One way. ``verified``: whether the loop sees the prompt's verifiers. ``request``: fields of a refine request.

    ``landing``: whether its texts land. ``asks_again``: whether it is the loop of asking.py, which takes from the
    request no more than how texts are sampled. ``trust``: in its judge.
    """

    label: str
    request: Mapping[str, Any]
    verified: bool = True
    landing: bool = False
    asks_again: bool = False
    trust: JudgeTrust = UNKNOWN


def _search(preset: str = "self_refine", *, judge: bool = False, **fields: Any) -> Mapping[str, Any]:
    return {"judge": judge, "search": {"preset": preset, "rounds": MOST_ROUNDS, **fields}}


ARMS: Mapping[str, Arm] = MappingProxyType(
    {
        "single_draft": Arm("single draft", _search(rounds=0, **UNAIDED)),
        "ruled_draft": Arm("single draft under its rules", _search(rounds=0, **{**UNAIDED, "constraints": "always"})),
        # Fresh drafts until one passes: four at a time, which takes less time than one after the other.
        "best_of_n": Arm("best of n", _search(drafts=4, branches=4, carry="none", critic="none", **UNAIDED)),
        "ask_again": Arm("ask again with the errors", _search(**UNAIDED), asks_again=True),
        "free": Arm("adaptive, free", _search("adaptive", **UNAIDED)),
        "aided": Arm(
            "adaptive, free, with repairs, aborts and landing", _search("adaptive", constraints="off"), landing=True
        ),
        "adaptive": Arm("adaptive", _search("adaptive", constraints="auto"), landing=True),
        "unaided": Arm(
            "adaptive without repairs, aborts and landing", _search("adaptive", **{**UNAIDED, "constraints": "auto"})
        ),
        "always": Arm("adaptive, all texts under their rules", _search("adaptive", constraints="always"), landing=True),
        "self_refine": Arm("self-refine", _search(), landing=True),
        "beam": Arm("beam", _search("beam"), landing=True),
        "judged": Arm("self-refine with a judge, trusted", _search(judge=True), landing=True),
        "distrusted": Arm(
            "self-refine with a judge, not trusted", _search(judge=True), landing=True, trust=JudgeTrust("none")
        ),
        "judge_self_refine": Arm("self-refine, judge only", _search(judge=True, critic="model"), verified=False),
    }
)
"""By name. ``single_draft`` and ``free`` are those that the others are measured against."""
COMPARED: Sequence[str] = tuple(ARMS)[:9]
"""Those that run unless others are named."""
