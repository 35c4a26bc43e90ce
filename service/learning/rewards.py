"""What a text for an exercise earns, in [0, 1]. The rules are all here.

- *Partial credit*: the mean score of the prompt's rules, so that a text that is nearer to them than its siblings earns
  more even where none passes. It makes up CREDIT of the reward.
- *The pass*: the rest is for a text that follows every rule and would be a good lesson. Partial credit alone never
  reaches what a pass earns.
- *Guards*: an empty text earns nothing, and one that loops LOOPING at most. A text that was cut has no end and no pass,
  and half of its credit. Where no rule is about the length, a text that is much shorter or longer than this prompt's
  usual ones loses a part, because a text of one word breaks few rules.

Verifiers cannot see whether a text makes sense. What keeps it from becoming nonsense that passes is the training's
KL term, and the exam afterwards.
"""

from statistics import fmean
from typing import get_args

from service.engines.base import FinishReason
from service.evaluators.text.length import Unit
from service.evaluators.text.loops import start_of_loop
from service.learning.exercises import Exercise

CREDIT = 0.5
LOOPING = 0.1
CUT = 0.5
LENGTHS = (0.4, 2.5)
"""Between these multiples of the usual length, a text loses nothing."""
_LENGTH_RULES = frozenset(get_args(Unit))


def reward(exercise: Exercise, text: str, finish_reason: FinishReason) -> float:
    """What a text earns. The same text always earns the same. ValueError if the prompt's rules cannot be checked."""
    verdict, stripped = exercise.prompt.verify(text), text.strip()
    if not stripped:
        return 0.0
    checks = [verifier.check(text) for verifier in exercise.prompt.verifiers or ()]
    share = fmean([fmean(check.score for check in each) for each in checks] or [1.0])
    credit = CREDIT * share
    if finish_reason != "stop":
        earned = CUT * credit
    elif verdict.passed:
        earned = credit + 1.0 - CREDIT
    else:
        earned = credit
    rules = {check.rule for each in checks for check in each}
    if not rules & _LENGTH_RULES:
        earned *= _of_length(len(stripped), exercise.usual)
    return min(earned, LOOPING) if start_of_loop(text) is not None else earned


def _of_length(length: int, usual: float) -> float:
    """The part that is left to a text of that length, from 0 to 1."""
    shortest, longest = (bound * usual for bound in LENGTHS)
    return min(1.0, length / shortest, longest / length)
