"""The arms: what is compared. Each is one way to run a program, on one of the servers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from bench.performance.programs import CONTRADICTION, ROUNDS, ChatLoop, Program, Refine

ServerName = Literal["plain", "plain_speculating", "redraft", "redraft_speculating"]

ROLES: Mapping[str, str] = MappingProxyType(
    {
        "draft": "You are a careful writer. You do what the user asks and reply with the text only.",
        "critique": "You are a strict critic. You say precisely what is wrong with a text and nothing else.",
        "revise": "You are a skilled editor. You improve a text by its critique and reply with the text only.",
    }
)


FEEDBACK = (
    "Give feedback on your reply. Rate its fluency, its coherence and its accuracy, each from 1 to 5 and with a "
    "reason, and say what should change."
)
"""A critic that scores in words, as loops by clients have it (Madaan et al. 2023, arXiv 2303.17651, section 3)."""


@dataclass(frozen=True)
class Arm:
    """``lengths``: those at which it runs. ``shipped``: a preset as a user calls it, not the same calls."""

    label: str
    server: ServerName
    program: Program
    lengths: Sequence[str] = ("fixed", "natural")
    shipped: bool = False

    @property
    def recorded(self) -> bool:
        """Whether its server records the engine's calls, which a plain one does not."""
        return self.server in ("redraft", "redraft_speculating")


def _same_calls(*, judge: bool) -> Program:
    """The client loops' calls: what the critic says of the newest text goes into its edit, to the last round.

    With carry ``best`` a text that breaks a rule would be edited first and redrafted next, without another critique.
    """
    rule = {"type": "keywords", "include": CONTRADICTION.include, "exclude": CONTRADICTION.exclude, "hard": True}
    return Refine(
        {
            "judge": judge,
            "evaluators": [rule],
            "search": {"preset": "self_refine", "critic": "model", "carry": "last", "rounds": ROUNDS},
            "stop": {"patience": ROUNDS + 1},
        }
    )


def _preset(name: str) -> Arm:
    rule = {"type": "length", "unit": "words", "max": 60}
    request: Mapping[str, Any] = {"evaluators": [rule], "search": {"preset": name}}
    return Arm(f"Redraft, preset `{name}`", "redraft", Refine(request), ("natural",), shipped=True)


ARMS: Mapping[str, Arm] = MappingProxyType(
    {
        "textbook": Arm("B1: client loop, a system prompt for each role", "plain", ChatLoop(ROLES, FEEDBACK)),
        "one_chat": Arm("B2: client loop, one growing chat", "plain", ChatLoop()),
        "one_chat_speculation": Arm("B2, speculation", "plain_speculating", ChatLoop(), ("natural",)),
        "redraft": Arm("Redraft, the same calls", "redraft", _same_calls(judge=False)),
        "redraft_judge": Arm("Redraft, judge too", "redraft", _same_calls(judge=True)),
        "speculation": Arm("Redraft, speculation", "redraft_speculating", _same_calls(judge=False), ("natural",)),
        "speculation_judge": Arm(
            "Redraft, speculation, judge too", "redraft_speculating", _same_calls(judge=True), ("natural",)
        ),
        **{name: _preset(name) for name in ("self_refine", "best_of_n", "beam", "adaptive")},
    }
)
