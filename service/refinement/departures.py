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
"""If request and text are longer together, they are not searched for departures. Weighing reads the request once more,
and vLLM holds a probability for each token of the prompt times each word of the vocabulary, in the memory that all
requests share."""
LEAST_LOGPROB = -20.0
LEAST_SIZE = 2.0
"""Smaller departures say nothing."""
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
        """Whether it is worth a remark."""
        return self.size >= TELLING_SIZE and self.is_of_words

    @property
    def is_of_words(self) -> bool:
        """Whether it is from one word to another, or from one operator to another.

        Others, of commas, spaces, the marks of a list or the end of the text, say something about layout and length.
        """
        if self.passage[-1:] in OPERATORS:
            return any(map(str.isalnum, self.passage)) and self.expected[:1] in OPERATORS
        return self.passage[-1:].isalnum() and any(map(str.isalnum, self.expected))


def is_long(request: Conversation, text: str) -> bool:
    """Whether a request, with all its turns, and a text are too long to be read once more. One with images is."""
    turns = list(request.turns())
    size = sum(len(each.encode()) for each in (text, *(turn.text for turn in turns)))
    return size > MOST_WEIGHED_BYTES or any(turn.images for turn in turns)


async def weigh(engine: Engine, request: Conversation, text: str) -> Sequence[Departure] | None:
    """The departures of a text from what the engine's model would have answered, the largest first; None if they cannot
    be measured. Nothing is too long here: ask ``is_long`` first."""
    if not text:
        return None
    try:
        likelihood = await engine.call(Weigh(request, text))
    except InvalidRequest:  # the engine's server only chats
        return None
    return find_departures(likelihood.tokens)


def largest(departures: Sequence[Departure]) -> float:
    """The size of the largest departure; 0 of none."""
    return max((each.size for each in departures), default=0.0)


def find_departures(tokens: Sequence[WeighedToken]) -> Sequence[Departure]:
    """All departures of some size, the largest first."""
    sizes = [_size(token) for token in tokens]
    places = [place for place, size in enumerate(sizes) if size >= LEAST_SIZE]
    return [
        Departure(_passage(tokens, place), tokens[place].rival.strip(), sizes[place])
        for place in sorted(places, key=lambda place: -sizes[place])
    ]


def _size(token: WeighedToken) -> float:
    sure = math.sqrt(math.exp(token.rival_logprob))
    return max(0.0, sure * (token.rival_logprob - max(token.logprob, LEAST_LOGPROB)))


def _passage(tokens: Sequence[WeighedToken], place: int) -> str:
    """The word that begins in this place, after a few tokens on the same line. A mark or an operator has no more than
    its own token."""
    end, first = place + 1, tokens[place].text
    if first[-1:].isalnum() or not first.strip(" "):
        while end < len(tokens) and tokens[end].text[:1].isalnum() and tokens[end].text.isascii():
            end += 1
    begin = max(0, place - TOKENS_BEFORE)
    before = "".join(token.text for token in tokens[begin:place]).rpartition("\n")[2]
    return (before + "".join(token.text for token in tokens[place:end])).lstrip()
