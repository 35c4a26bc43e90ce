"""A judge of fluency: how well the engine's model would have predicted the text.

The text is scored as a reply to a neutral request, so that the actual request plays no part. Its *rate* is its negative
log-likelihood per byte of UTF-8 (nats; the logarithm of a perplexity per byte), which depends neither on the length of
the text nor on the tokenizer. The score is

    distinct / (1 + (rate / midpoint) ** STEEPNESS)

A model predicts repetition well, so by perplexity alone a loop would be the best of texts. ``distinct`` is the share of
distinct ones among all runs of WINDOW characters in the text: 1 - seq-rep-n of Welleck et al. 2019 (arXiv 1908.04319).
It is taken over characters, so that it needs no words, and treats all numbers as equal, so that counting cannot hide a
loop.

The constants come from the embedded model: English prose has a rate of 0.5 to 1.0, the same words shuffled 1.4 to 2.2,
random letters 3.7 (docs/results/log.md). A text in a language that the model hardly knows scores no better than
shuffled words.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import stdev
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Le

from service.concurrency import settle
from service.engines.base import Weigh
from service.engines.conversation import Conversation, Turn
from service.evaluators.base import STRICT, Authority, Evaluation, Submission, Weight
from service.evaluators.toolbox import Toolbox

NEUTRAL_REQUEST = "Write a text."
STEEPNESS = 4
WINDOW = 20
LEAST_TOKENS = 5
"""With fewer, the judge abstains: they say nothing about fluency."""
LEAST_LOGPROB = -20.0
"""The least that a token counts for, so that one odd name does not outweigh the rest of the text."""
PIECE_CHARACTERS = 2_000
"""A longer text is scored in pieces, concurrently. vLLM holds a probability for each token of the prompt times each
word of the vocabulary, in the memory of the engine that all requests share."""
MOST_CHARACTERS = 8 * PIECE_CHARACTERS
"""The rest of a longer text is not read."""


@dataclass(frozen=True, kw_only=True)
class Perplexity:
    """Scores fluency. ``midpoint``: the rate that scores one half; larger models have lower rates."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    authority: ClassVar[Authority] = "judge"
    hard: ClassVar[bool] = False

    type: Literal["perplexity"] = "perplexity"
    midpoint: Annotated[float, Ge(0.01), Le(10.0)] = 1.2
    weight: Weight = 1.0

    def resolve(self, tools: Toolbox) -> "Perplexity":
        return self

    async def evaluate(self, submission: Submission) -> Evaluation:
        text = submission.text.strip()[:MOST_CHARACTERS]
        request = Conversation(Turn("user", NEUTRAL_REQUEST))
        weighed = await settle(submission.engine.call(Weigh(request, piece)) for piece in _pieces(text))
        logprobs = [max(logprob, LEAST_LOGPROB) for likelihood in weighed for logprob in likelihood.logprobs]
        score, stderr = self._fluency(text, logprobs)
        return Evaluation.from_evaluator(self, score, stderr=stderr)

    def _fluency(self, text: str, logprobs: Sequence[float]) -> tuple[float | None, float | None]:
        """The score and its standard error: that of the mean over the tokens, times the slope of the formula."""
        if len(logprobs) < LEAST_TOKENS:
            return None, None
        size = len(text.encode())
        rate = -math.fsum(logprobs) / size
        rate_stderr = stdev(logprobs) * math.sqrt(len(logprobs)) / size
        fluency = 1 / (1 + (rate / self.midpoint) ** STEEPNESS)
        slope = fluency * (1 - fluency) * STEEPNESS / rate if rate else 0.0
        distinct = _distinct_share(text)
        return distinct * fluency, distinct * slope * rate_stderr


def _pieces(text: str) -> list[str]:
    """The text in pieces, cut before white space where possible."""
    return re.findall(rf"(?s).{{1,{PIECE_CHARACTERS}}}(?!\S)|.{{1,{PIECE_CHARACTERS}}}", text)


def _distinct_share(text: str) -> float:
    """The share of distinct ones among all runs of WINDOW characters."""
    text = re.sub(r"\d+", "0", " ".join(text.split()))
    count = len(text) - WINDOW + 1
    return len({text[start : start + WINDOW] for start in range(count)}) / count if count > 0 else 1.0
