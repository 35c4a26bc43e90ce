"""What an exam asks: prompts that the split keeps from training, in an order that the recipe's seed shuffles, and texts
that were written for it."""

import random
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from pydantic import BaseModel, ConfigDict

from service.engines.conversation import Conversation, Turn
from service.learning.hidden import hide_rules
from service.learning.prompts import Prompt
from service.learning.recipe import Examining


class ExamFailed(Exception):
    """The exam could not be held. The message is a sentence for the operator."""


class Pair(BaseModel):
    """A request without rules, and a reply to weigh."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    request: str
    reply: str

    @property
    def conversation(self) -> Conversation:
        return Conversation(Turn("user", self.request))


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt for single drafts. hidden: the same prompt with a rule that no lesson checked in place of its own; None
    if the recipe leaves hidden rules out."""

    prompt: Prompt
    hidden: Prompt | None = None


@dataclass(frozen=True, slots=True)
class Paper:
    """The parts of an exam; the last two are empty if the recipe leaves them out.

    trained: prompts with trained kinds of rules, and a hidden rule each. other: with kinds that the recipe keeps out.
    plain: requests with replies to weigh. refine: prompts with rules of all kinds.
    """

    trained: Sequence[Question]
    other: Sequence[Question]
    plain: Sequence[Pair] = ()
    refine: Sequence[Prompt] = ()

    @property
    def prompts(self) -> Sequence[Prompt]:
        """Those by which attempts are counted: the same ones again are another attempt, whatever else was asked."""
        return [question.prompt for question in (*self.trained, *self.other)]


def make_paper(prompts: Sequence[Prompt], kept_out: Sequence[str], examining: Examining) -> Paper:
    """The exam's paper, from the prompts that the split keeps for it.

    The loop's prompts are from the end of the order, which a large split has not used for the first parts.
    Raises ExamFailed if a part would be empty.
    """
    draws = random.Random(examining.seed)  # noqa: S311 - nothing secret
    shuffled = sorted((prompt for prompt in prompts if prompt.evaluators), key=lambda prompt: prompt.id)
    draws.shuffle(shuffled)
    other = [prompt for prompt in shuffled if set(prompt.kinds) & set(kept_out)]
    trained = [prompt for prompt in shuffled if not set(prompt.kinds) & set(kept_out)]
    if not trained or not other:
        raise ExamFailed("the exam needs prompts with trained and with other kinds of rules: practise more prompts")
    plain, refine = examining.plain, examining.refine
    ask = _hide_rules if examining.hidden else _ask
    return Paper(
        ask(trained[: examining.prompts]),
        _ask(other[: examining.prompts]),
        plain_pairs()[: plain.texts] if plain else (),
        shuffled[::-1][: refine.prompts] if refine else (),
    )


def _ask(prompts: Sequence[Prompt]) -> Sequence[Question]:
    return [Question(prompt) for prompt in prompts]


def _hide_rules(prompts: Sequence[Prompt]) -> Sequence[Question]:
    return [
        Question(prompt.model_copy(update={"messages": hidden.messages}), hidden)
        for prompt, hidden in zip(prompts, hide_rules(prompts), strict=True)
    ]


@cache
def plain_pairs() -> Sequence[Pair]:
    """The requests without rules, shuffled once and for all."""
    source = files(__package__).joinpath("plain.toml").read_text(encoding="utf-8")
    pairs = [Pair.model_validate(stated) for stated in tomllib.loads(source)["pairs"]]
    random.Random("plain").shuffle(pairs)  # noqa: S311 - nothing secret
    return pairs
