"""The gate: from an exam's results to a verdict. Pure functions; the rules are all here.

- *invalid*: the results say nothing of the candidate. The exam was made with other evaluators or another base, its
  answers could not be evaluated, or the candidate's tokens in the engine are not those of the trainer.
- *broken*: the candidate writes as the incumbent does, token by token, so that nothing was trained or loaded; or most
  of its texts are cut, empty or loop.
- *reject*: it is shown to be worse than the incumbent somewhere by more than the margin, a share of bad texts grew by
  more than MOST_WORSE, its texts became much shorter or longer, or no more prompts could show that it is better.
- *promote*: it is shown to be better on held-out prompts with the kinds of rules that it was trained on, and not worse
  by more than the margin on those with other kinds.
- *inconclusive*: none of these is shown. More prompts may decide.

The first that holds is the verdict. What is "shown" is decided by bets (statistics.py), so that an exam may be looked
at after each prompt. The n-th attempt at the same prompts has a smaller part of alpha, so that all attempts together
promote something that is not better with a probability of at most alpha.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from service.learning.statistics import is_above, spend

Decision = Literal["promote", "reject", "inconclusive", "invalid", "broken"]

ALPHA = 0.05
MOST_FAILED = 0.01
"""The share of answers that may be without an evaluation."""
MOST_WORSE = 0.02
"""By how much the share of cut, empty or looping texts may grow."""
LENGTHS = (0.6, 1.6)
"""Between which the ratio of the mean lengths must be."""
BROKEN_SHARE = 0.5
LEAST_AGREEMENT = 0.9
"""The share of the tokens of greedy texts on which trainer and engine have to agree."""


@dataclass(frozen=True, slots=True)
class Arm:
    """How one model answered the exam's prompts.

    passed: for each prompt, the share of its samples that pass, in the order in which the prompts came.
    bad: the share of all texts that were cut, are empty or loop. tokens: the mean length of a text.
    """

    passed: Sequence[float]
    bad: float
    tokens: float


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the exam, which both models answered."""

    incumbent: Arm
    candidate: Arm

    @property
    def differences(self) -> Sequence[float]:
        return [after - before for before, after in zip(self.incumbent.passed, self.candidate.passed, strict=True)]


@dataclass(frozen=True, slots=True)
class Results:
    """What an exam found.

    trained: prompts with the kinds of rules that the candidate was trained on. other: prompts with other kinds.
    failed: the share of answers that could not be evaluated.
    agreement: on how many of the tokens of the trainer's greedy texts the engine agrees with it; None if unknown.
    differs: whether the candidate's greedy texts are not all the incumbent's.
    complete: whether the exam has no more prompts to ask.
    mismatch: why the results cannot be compared, such as another base; empty if they can.
    """

    trained: Section
    other: Section
    failed: float = 0.0
    agreement: float | None = None
    differs: bool = True
    complete: bool = True
    mismatch: str = ""


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict, with the reasons for it."""

    decision: Decision
    reasons: tuple[str, ...]


def judge(results: Results, *, margin: float, attempt: int = 1, alpha: float = ALPHA) -> Judgement:
    """The gate's verdict.

    margin: by how much, as a share of passing texts, the candidate may be worse on prompts with other kinds of rules.
    attempt: how often candidates were judged by these prompts, this time included.
    alpha: the most probability of promoting something that is not better, over all attempts.
    """
    for decision, reasons in (
        ("invalid", _invalid(results)),
        ("broken", _broken(results)),
        ("reject", _reject(results, margin, alpha)),
    ):
        if reasons:
            return Judgement(decision, tuple(reasons))  # type: ignore[arg-type]
    better = is_above(results.trained.differences, least=0.0, alpha=spend(alpha, attempt))
    as_good = is_above(results.other.differences, least=-margin, alpha=alpha)
    shown = (
        f"better on trained kinds of rules: {'shown' if better else 'not shown'}",
        f"at most {margin:.0%} worse on other kinds: {'shown' if as_good else 'not shown'}",
    )
    return Judgement("promote" if better and as_good else "inconclusive", shown)


def _invalid(results: Results) -> Sequence[str]:
    reasons = [results.mismatch] if results.mismatch else []
    if not results.trained.differences or not results.other.differences:
        reasons.append("a part of the exam has no prompts")
    if results.failed > MOST_FAILED:
        reasons.append(f"{results.failed:.1%} of the answers could not be evaluated")
    if results.agreement is not None and results.agreement < LEAST_AGREEMENT:
        reasons.append(f"the engine would write only {results.agreement:.0%} of the tokens that the trainer writes")
    return reasons


def _broken(results: Results) -> Sequence[str]:
    if not results.differs:
        return ["the candidate writes what the incumbent writes, so nothing was trained or nothing was loaded"]
    bad = max(results.trained.candidate.bad, results.other.candidate.bad)
    if bad > BROKEN_SHARE and bad > max(results.trained.incumbent.bad, results.other.incumbent.bad) + MOST_WORSE:
        return [f"{bad:.0%} of the texts are cut, empty or loop"]
    return []


def _reject(results: Results, margin: float, alpha: float) -> Sequence[str]:
    reasons = []
    for name, section, most in (("trained", results.trained, 0.0), ("other", results.other, margin)):
        worse = [-difference for difference in section.differences]
        if is_above(worse, least=most, alpha=alpha / 2):
            reasons.append(f"shown to be worse on {name} kinds of rules")
        if not results.complete:
            continue  # the shares below are not tests that may be looked at early
        grown = section.candidate.bad - section.incumbent.bad
        if grown > MOST_WORSE:
            reasons.append(f"{grown:.1%} more texts are cut, empty or loop, on {name} kinds of rules")
        ratio = section.candidate.tokens / max(section.incumbent.tokens, 1.0)
        if not LENGTHS[0] <= ratio <= LENGTHS[1]:
            reasons.append(f"texts have {ratio:.2f} times the tokens, on {name} kinds of rules")
    if results.complete and fmean(results.trained.differences) <= 0.0:
        reasons.append("not better on trained kinds of rules after all prompts")
    return reasons
