"""The ways of spending tokens on an open request, each as fields of a refine request."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

MOST_ROUNDS = 8
"""More than the budget pays for."""


def _search(preset: str, **fields: Any) -> Mapping[str, Any]:
    return {"search": {"preset": preset, **fields}}


ARMS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "draft": {**_search("self_refine", rounds=0), "judge": False},
        "best_of_n": _search("best_of_n", drafts=8),
        "vote": {**_search("vote", drafts=8), "judge": False},
        "self_refine": _search("self_refine", rounds=MOST_ROUNDS, critic="model"),
        "constitutional": _search("constitutional", rounds=MOST_ROUNDS, critic="model"),
        "pairwise": {**_search("self_refine", rounds=MOST_ROUNDS, critic="model", select="pairwise"), "judge": False},
        "default": {},
    }
)
"""``draft`` is one text, ``best_of_n`` the best of many by the judge, and ``vote`` the most frequent of many. The next
three are criticised and revised. ``default`` is what the task does if a request says nothing."""
RIVAL = "best_of_n"
"""The arm that the others have to be better than."""
