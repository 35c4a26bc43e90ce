"""Exercises: prompts that the model tries again and again while it is trained, and is rewarded for (rewards.py).

A prompt is an exercise if its rules can be checked by a text alone, it is not of the exam (split.py), and the model
passes sometimes: between LEAST_PASSED and MOST_PASSED of its free texts so far. From a prompt whose texts all fail, or
nearly all pass, a group of samples has nothing to compare.
"""

from collections.abc import Iterable, Iterator, Mapping
from statistics import fmean, median

from pydantic import BaseModel, ConfigDict

from service.learning.collected import Collected
from service.learning.prompts import Prompt
from service.learning.split import Part

LEAST_PASSED, MOST_PASSED = 0.05, 0.8


class Exercise(BaseModel):
    """A prompt to try.

    passed: the share of its free texts that passed when they were collected. usual: their median length in characters.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: Prompt
    passed: float
    usual: float


def find_exercises(collected: Iterable[Collected], parts: Mapping[str, Part]) -> Iterator[Exercise]:
    """The exercises among the prompts of collected texts.

    parts: of the prompts, by their ids. KeyError for a prompt that has none.
    """
    for each in collected:
        free = [text for text in each.texts if text.source == "free" and text.text.strip()]
        if parts[each.prompt.id] != "train" or each.prompt.verifiers is None or not free:
            continue
        passed = fmean(text.finish_reason == "stop" and each.prompt.verify(text.text).passed for text in free)
        if LEAST_PASSED <= passed <= MOST_PASSED:
            yield Exercise(prompt=each.prompt, passed=passed, usual=median(len(text.text) for text in free))
