"""Demonstrations: replies that were found right or wrong, which a critic reads before it is asked about another.

A small model says Yes to nearly every reply, and doubts what it would have put otherwise. A few demonstrations before
the request teach it the scale (Brown et al. 2020, arXiv 2005.14165): what says the same in other words is right, and
what misses one part of the request is wrong. docs/results/log.md has the measurements.

They are the same for all requests of a task, so an engine that caches prefixes computes them once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import takewhile
from typing import Annotated, Any, ClassVar

from annotated_types import Len

from service.engines.conversation import Conversation, Turn
from service.evaluators.base import STRICT
from service.evaluators.model.judge import ANSWERS
from service.refinement.prompts import Prompts

FENCE = "[4d0f61c2a97b]"
"""Around the replies that are demonstrated. It looks like a program's own fence and protects nothing: these texts are
the operator's."""

Text = Annotated[str, Len(1, 2_000)]


@dataclass(frozen=True, kw_only=True)
class Demonstration:
    """A request with two replies: the critic's ``own``, and somebody else's ``reply``, which is right or not."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    prompt: Text
    own: Text
    reply: Text
    correct: bool


@dataclass(frozen=True)
class Demonstrations:
    """What a critic reads before a request. ``alone``: the replies alone. ``compared``: each after the critic's own."""

    alone: Conversation
    compared: Conversation

    @classmethod
    def compile(cls, demonstrations: Sequence[Demonstration], prompts: Prompts) -> "Demonstrations":
        """Of at least one."""
        doubt = prompts.render("doubt", issues=(), principles=(), verifications={})
        prefill = prompts.render("doubt_prefill")
        alone: list[Turn] = []
        compared: list[Turn] = []
        for each in demonstrations:
            prompt = Turn("user", each.prompt)
            answered = Turn("user", doubt), Turn("assistant", prefill + ANSWERS[0 if each.correct else 1])
            shown = {"candidate": each.reply, "fence": FENCE}
            alone += [prompt, Turn("user", prompts.render("show", **shown)), *answered]
            another = Turn("user", prompts.render("show_another", **shown))
            compared += [prompt, Turn("assistant", each.own), another, *answered]
        return cls(_join(alone), _join(compared))


def put_before(request: Conversation, demonstrations: Conversation) -> Conversation:
    """The request after the demonstrations. What it says to the system stays in front, where chat templates want it."""
    turns = list(request.turns())
    system = list(takewhile(lambda turn: turn.role == "system", turns))
    first = _join([*system, *demonstrations.turns()]) if system else demonstrations
    return reduce(_extend, turns[len(system) :], first)


def _join(turns: Sequence[Turn]) -> Conversation:
    return reduce(_extend, turns[1:], Conversation(turns[0]))


def _extend(before: Conversation, turn: Turn) -> Conversation:
    return Conversation(turn, before)
