"""Where a text departs from what the model itself would have written, and how far.

A small model that is asked whether a reply is right says yes to nearly all. But where it would have written *Paris*, it
gives *London* a probability of a few millionths, and that is seen without asking (docs/results/critic.md). What counts
is a departure from something that the model is sure of: of several good words, each is improbable.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from service.engines.base import Engine, Weigh, WeighedToken
from service.engines.conversation import Conversation
from service.errors import InvalidRequest

MOST_WEIGHED_BYTES = 2_000
"""A longer request and text are not searched for departures. Weighing reads the request once more, and vLLM holds a
probability for each token of the prompt times each word of the vocabulary, in the memory that all requests share."""
LEAST_LOGPROB = -20.0
MOST_LISTED = 3
LEAST_SIZE = 2.0
"""Smaller departures are no hint to a critic."""
TELLING_SIZE = 4.0
"""From here on a departure from one word to another is worth a remark."""
OPERATORS = frozenset("+-*/%<>=")
TOKENS_BEFORE = 5


@dataclass(frozen=True, slots=True)
class Departure:
    """One place in a text. ``passage``: ends with the word that departs. ``expected``: how the model would have gone on
    there, or the beginning of it. ``size``: how much less likely the word is, in nats, times the square root of how
    probable the expected one is."""

    passage: str
    expected: str
    size: float

    @property
    def tells(self) -> bool:
        """Whether it is worth a remark: a large one, from one word to another, or from one operator to another; not of
        commas, spaces, or the marks of a list."""
        if self.size < TELLING_SIZE:
            return False
        if self.passage[-1:] in OPERATORS:
            return any(map(str.isalnum, self.passage)) and self.expected[:1] in OPERATORS
        return self.passage[-1:].isalnum() and any(map(str.isalnum, self.expected))


async def weigh(engine: Engine, request: Conversation, text: str) -> Sequence[Departure] | None:
    """The largest departures of a text from what the engine's model would have answered, the largest first; None if
    they cannot be measured."""
    if not text or len((request.turn.text + text).encode()) > MOST_WEIGHED_BYTES:
        return None
    try:
        likelihood = await engine.call(Weigh(request, text))
    except InvalidRequest:  # the engine's server only chats
        return None
    return find_departures(likelihood.tokens)


def size_of(departures: Sequence[Departure] | None) -> float | None:
    """The size of the largest departure; None if they could not be measured."""
    return None if departures is None else max((each.size for each in departures), default=0.0)


def find_departures(tokens: Sequence[WeighedToken]) -> Sequence[Departure]:
    """The largest departures, the largest first."""
    sizes = [_size(token) for token in tokens]
    largest = sorted(range(len(tokens)), key=lambda place: -sizes[place])[:MOST_LISTED]
    return [
        Departure(_passage(tokens, place), tokens[place].rival.strip(), sizes[place])
        for place in largest
        if sizes[place] >= LEAST_SIZE
    ]


def _size(token: WeighedToken) -> float:
    sure = math.sqrt(math.exp(token.rival_logprob))
    return max(0.0, sure * (token.rival_logprob - max(token.logprob, LEAST_LOGPROB)))


def _passage(tokens: Sequence[WeighedToken], place: int) -> str:
    """The word that begins in this place, after a few tokens on the same line."""
    end = place + 1
    while end < len(tokens) and tokens[end].text[:1].isalnum() and tokens[end].text.isascii():
        end += 1
    begin = max(0, place - TOKENS_BEFORE)
    before = "".join(token.text for token in tokens[begin:place]).rpartition("\n")[2]
    return (before + "".join(token.text for token in tokens[place:end])).strip()
