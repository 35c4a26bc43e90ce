"""Repairs: what code can repair in a text without changing what it says, for no call and no token.

Verifiers know how to repair what they find (``Verifier.repair``). One repair may undo another, or break a rule that was
met. So all of them are made together, and the result is kept only if the verifiers like it better: their rank rises,
and no rule that passed fails. Otherwise they are tried one by one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from service.evaluators.base import LOOP_COST, Check, Evaluation, Evaluator, Verifier
from service.evaluators.text.rewriting import within_quotes
from service.evaluators.text.trimming import trim_unfinished
from service.refinement.candidate import Assessment

_MOST_CHECKS = 8
"""Of each verifier, in a usual attempt."""
MOST_PASSES = 3
"""How often the repairs of all rules are made. A repair may make another one necessary."""


@dataclass(frozen=True, slots=True)
class Repair:
    """What became of the attempt to repair a text.

    text: the repaired text; None if nothing was better.
    tried: the rules that code changed something for, such as "format.lowercase". kept: those repaired in the text.
    """

    text: str | None
    tried: frozenset[str] = frozenset()
    kept: frozenset[str] = frozenset()


def local_verifiers(evaluators: Sequence[Evaluator]) -> Sequence[Verifier]:
    """The verifiers that check texts in this process. None where the text is code that tests run."""
    if any(evaluator.type == "code_tests" for evaluator in evaluators):
        return []
    return [evaluator for evaluator in evaluators if isinstance(evaluator, Verifier)]


def is_slow(text: str, verifiers: Sequence[Verifier]) -> bool:
    """Whether repairing would hold up the event loop."""
    cost = sum(verifier.cost(text) for verifier in verifiers)
    return any(v.in_thread for v in verifiers) or _MOST_CHECKS * cost > LOOP_COST


def repair(text: str, verifiers: Sequence[Verifier], *, unfinished: bool = False) -> Repair:
    """Repair a text by the rules that it breaks.

    unfinished: the text was cut in the middle, so its last sentence may go too.
    """
    given = _Checked.of(text, verifiers)
    if not any(_can_repair(v) and _broken(v, checks) for v, checks in zip(verifiers, given.checks, strict=True)):
        return Repair(None)
    beginnings = [_Checked.of(ended, verifiers)] if unfinished and (ended := trim_unfinished(text)) else []
    tried: set[str] = set()
    for start in (*beginnings, given):
        for way in (_repair_together, _repair_one_by_one):
            repaired, rules = way(start)
            tried |= rules
            if rules and repaired.improves_on(given):
                return Repair(repaired.text, frozenset(tried), frozenset(rules))
    return Repair(None, frozenset(tried))


@dataclass(frozen=True)
class _Checked:
    """A text, with the checks of each verifier."""

    text: str
    verifiers: Sequence[Verifier]
    checks: Sequence[Sequence[Check]]

    @classmethod
    def of(cls, text: str, verifiers: Sequence[Verifier]) -> "_Checked":
        return cls(text, verifiers, [verifier.check(text) for verifier in verifiers])

    def with_text(self, text: str) -> "_Checked":
        return _Checked.of(text, self.verifiers)

    def improves_on(self, other: "_Checked") -> bool:
        """Whether the verifiers rank it higher, and no rule fails that the other text passes."""
        pairs = zip(self.checks, other.checks, strict=True)
        return self._rank > other._rank and not any(_is_worse(new, old) for new, old in pairs)

    @property
    def _rank(self) -> tuple[float, float]:
        evaluations = [
            Evaluation.from_evaluator(verifier, sum(check.score for check in checks) / len(checks))
            for verifier, checks in zip(self.verifiers, self.checks, strict=True)
        ]
        rank = Assessment(evaluations).rank
        return rank.hard or 0.0, rank.soft or 0.0


def _is_worse(new: Sequence[Check], old: Sequence[Check]) -> bool:
    """Whether a verifier's checks found a rule broken that held. Where it checked other rules, its score decides."""
    if [check.rule for check in new] == [check.rule for check in old]:
        return any(after.score < 1.0 <= before.score for after, before in zip(new, old, strict=True))
    return sum(check.score for check in new) / len(new) < sum(check.score for check in old) / len(old)


def _repair_together(start: _Checked) -> tuple[_Checked, set[str]]:
    """The text after all repairs, those that became necessary on the way included, and the rules that they repair."""
    text, rules = start.text, set[str]()
    for _ in range(MOST_PASSES):
        before = text
        for verifier in filter(_can_repair, start.verifiers):
            broken = _broken(verifier, verifier.check(text))
            if broken and (repaired := _repaired(verifier, text)) is not None:
                text, rules = repaired, rules | broken
        if text == before:
            break
    return start.with_text(text), rules


def _repair_one_by_one(start: _Checked) -> tuple[_Checked, set[str]]:
    """The text after those repairs that each improve it, and the rules that they repair."""
    current, rules = start, set[str]()
    for verifier, checks in zip(start.verifiers, start.checks, strict=True):
        broken = _broken(verifier, checks)
        if broken and (text := _repaired(verifier, current.text)) is not None:
            repaired = current.with_text(text)
            if repaired.improves_on(current):
                current, rules = repaired, rules | broken
    return current, rules


def _can_repair(verifier: Verifier) -> bool:
    return type(verifier).repair is not Verifier.repair


def _broken(verifier: Verifier, checks: Sequence[Check]) -> frozenset[str]:
    """The names of the rules that are broken."""
    return frozenset(f"{verifier.type}.{check.rule}" for check in checks if check.score < 1.0)


def _repaired(verifier: Verifier, text: str) -> str | None:
    """What a verifier makes of the text; None if that is the same text. Quotation marks around the whole stay."""
    repaired = within_quotes(text, verifier.repair)
    return repaired if repaired is not None and repaired.strip() and repaired != text else None
