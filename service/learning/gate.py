"""The gate: from an exam's results to a verdict. Pure functions; the rules are all here.

- *invalid*: the results say nothing of the candidate. Texts could not be refined, or the candidate's tokens in the
  engine are not those of the trainer.
- *broken*: the candidate writes as the incumbent does, token by token, so that nothing was trained or loaded; or most
  of its texts are cut, empty or loop.
- *reject*: it is shown to be worse than the incumbent in some part by more than the part's margin; or, at the end, the
  share of bad texts grew by more than MOST_WORSE, its texts became much shorter or longer, or it did not score higher
  on the trained kinds of rules.
- *promote*: it is shown to be better on held-out prompts with the kinds of rules that it was trained on, and, in each
  other part that was examined, not worse by more than the part's margin. Its texts are not worse as above.
- *inconclusive*: none of these is shown. More prompts may decide.

The first that holds is the verdict. What is "shown" is decided by bets (statistics.py), so that an exam may be looked
at after each prompt. The n-th attempt at the same prompts has a smaller part of alpha, so that all attempts together
promote something that is not better with a probability of at most alpha. Something that is worse by more than the
margin in one of the other parts passes that part with a probability of at most alpha, however many parts there are.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from types import MappingProxyType
from typing import Literal

from service.learning.statistics import is_above, spend

Decision = Literal["promote", "reject", "inconclusive", "invalid", "broken"]
Unit = Literal["share", "nats"]

PARTS: Mapping[str, str] = MappingProxyType(
    {
        "trained": "trained kinds of rules",
        "hidden": "hidden rules",
        "other": "other kinds of rules",
        "plain": "texts without rules",
        "refine": "refined texts",
    }
)
"""The parts of an exam, in the order in which they are asked. In the first one the candidate has to be better."""

ALPHA = 0.05
MOST_FAILED = 0.02
"""The share of the loop's programs that may end by a failure."""
MOST_WORSE = 0.02
"""By how much the share of cut, empty or looping texts may grow."""
LENGTHS = (0.6, 1.6)
"""Between which the ratio of the mean lengths must be."""
BROKEN_SHARE = 0.5
LEAST_AGREEMENT = 0.9
"""The share of the tokens of greedy texts on which trainer and engine have to agree."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the exam: the scores of both models, prompt by prompt, in the order in which the prompts came.

    A score is the share of a prompt's texts that pass, or the mean log-likelihood of a text's tokens.
    margin: by how much the mean difference may be below 0.
    bound: a difference beyond it counts as the bound, because the bets need differences that are bounded. Shares cannot
    differ by more than 1. What is shown of log-likelihoods is shown of their clipped differences.
    """

    incumbent: Sequence[float]
    candidate: Sequence[float]
    margin: float = 0.0
    bound: float = 1.0
    unit: Unit = "share"

    @property
    def differences(self) -> Sequence[float]:
        """As they count: in [-bound, bound]."""
        pairs = zip(self.incumbent, self.candidate, strict=True)
        return [max(-self.bound, min(self.bound, after - before)) for before, after in pairs]

    def shows_more_than(self, least: float, alpha: float) -> bool:
        """Whether the mean difference is shown to be above ``least``."""
        scaled = [difference / self.bound for difference in self.differences]
        return is_above(scaled, least=least / self.bound, alpha=alpha)

    def shows_less_than(self, most: float, alpha: float) -> bool:
        """Whether the mean difference is shown to be below ``most``."""
        return Part(self.candidate, self.incumbent, bound=self.bound).shows_more_than(-most, alpha)


@dataclass(frozen=True, slots=True)
class Texts:
    """One model's single drafts, over all parts. bad: how many were cut, are empty or loop."""

    count: int = 0
    bad: int = 0
    tokens: int = 0

    def with_drafts(self, count: int, bad: int, tokens: int) -> "Texts":
        """These and further ones."""
        return Texts(self.count + count, self.bad + bad, self.tokens + tokens)

    @property
    def bad_share(self) -> float:
        return self.bad / max(1, self.count)

    @property
    def mean_tokens(self) -> float:
        return self.tokens / max(1, self.count)


@dataclass(frozen=True, slots=True)
class Results:
    """What an exam found.

    trained: prompts with the kinds of rules that the candidate was trained on. others: the other parts that were
    examined, by their names in PARTS.
    incumbent, candidate: the texts of both.
    failed: the share of the loop's programs that ended by a failure, which says nothing of the models.
    agreement: on how many of the tokens of the trainer's greedy texts the engine agrees with it; None if unknown.
    differs: whether the candidate's greedy texts are not all the incumbent's.
    complete: whether no more prompts are to come.
    """

    trained: Part
    others: Mapping[str, Part]
    incumbent: Texts
    candidate: Texts
    failed: float = 0.0
    agreement: float | None = None
    differs: bool = True
    complete: bool = True

    @property
    def parts(self) -> Mapping[str, Part]:
        """All parts that were examined, by their names."""
        return {"trained": self.trained} | {name: self.others[name] for name in PARTS if name in self.others}


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict, with the reasons for it."""

    decision: Decision
    reasons: tuple[str, ...] = field(default=())


def judge(results: Results, *, attempt: int = 1, alpha: float = ALPHA) -> Judgement:
    """The gate's verdict.

    attempt: how often candidates were judged by these prompts, this time included.
    alpha: the most probability of promoting something that is not better, over all attempts.
    """
    faults = list(_faults(results))
    if reasons := list(_invalid(results)):
        return Judgement("invalid", tuple(reasons))
    if reasons := list(_broken(results)):
        return Judgement("broken", tuple(reasons))
    if reasons := [*_worse(results, alpha), *(faults if results.complete else ())]:
        return Judgement("reject", tuple(reasons))
    shown = {name: shows_enough(name, part, attempt=attempt, alpha=alpha) for name, part in results.parts.items()}
    reasons = [f"better on {PARTS['trained']}: {_shown(shown['trained'])}"]
    for name, meaning in PARTS.items():
        if part := results.others.get(name):
            reasons.append(f"{meaning}, at most {_amount(part)} worse: {_shown(shown[name])}")
        elif name != "trained":
            reasons.append(f"{meaning}: not examined")
    promoted = all(shown.values()) and not faults
    return Judgement("promote" if promoted else "inconclusive", tuple(reasons))


def shows_enough(name: str, part: Part, *, attempt: int = 1, alpha: float = ALPHA) -> bool:
    """Whether a part has shown what it has to: that the candidate is better, or not worse by more than the margin."""
    if name == "trained":
        return part.shows_more_than(0.0, spend(alpha, attempt))
    return part.shows_more_than(-part.margin, alpha)


def _invalid(results: Results) -> Iterator[str]:
    for name, part in results.parts.items():
        if not part.candidate:
            yield f"{PARTS[name]}: the exam has no prompts"
    if results.failed > MOST_FAILED:
        yield f"{results.failed:.1%} of the texts could not be refined"
    if results.agreement is not None and results.agreement < LEAST_AGREEMENT:
        yield f"the engine would write only {results.agreement:.0%} of the tokens that the trainer writes"


def _broken(results: Results) -> Iterator[str]:
    if not results.differs:
        yield "the candidate writes what the incumbent writes, so nothing was trained or nothing was loaded"
    bad = results.candidate.bad_share
    if bad > BROKEN_SHARE and bad > results.incumbent.bad_share + MOST_WORSE:
        yield f"{bad:.0%} of the texts are cut, empty or loop"


def _worse(results: Results, alpha: float) -> Iterator[str]:
    """The parts that are shown to be worse; a candidate that is not gets a reason here with at most alpha."""
    for name, part in results.parts.items():
        if part.shows_less_than(-part.margin, alpha / len(PARTS)):
            yield f"{PARTS[name]}: shown to be worse" + (f" by more than {_amount(part)}" if part.margin else "")


def _faults(results: Results) -> Iterator[str]:
    """What is wrong with the answers so far. These are no tests that may be looked at early, so they reject nothing
    before the end. But nothing is promoted with them."""
    grown = results.candidate.bad_share - results.incumbent.bad_share
    if grown > MOST_WORSE:
        yield f"{grown:.1%} more texts are cut, empty or loop"
    ratio = results.candidate.mean_tokens / max(results.incumbent.mean_tokens, 1.0)
    if not LENGTHS[0] <= ratio <= LENGTHS[1]:
        yield f"texts have {ratio:.2f} times the tokens"
    if results.trained.candidate and fmean(results.trained.differences) <= 0.0:
        yield f"not better on {PARTS['trained']}"


def _shown(shown: bool) -> str:
    return "shown" if shown else "not shown"


def _amount(part: Part) -> str:
    return f"{part.margin:.0%}" if part.unit == "share" else f"{part.margin:g} nats a token"
