"""Landing: a text that comes near the most tokens that it may have ends at a sentence, instead of being cut within one.

In the last fifth of its tokens a text ends at the first sentence at whose end every rule holds. If none comes, and
``max_tokens`` cuts it, it loses its last, unfinished sentence, if no rule likes it less without it. Only rules that are
checked here and at once are asked. What is no prose is left alone: code, JSON, choices.
"""

import re
from collections.abc import Sequence

from service.engines.base import Completion, FinishReason
from service.evaluators.base import LOOP_COST, Evaluator, Verifier
from service.evaluators.text.sentences import sentence_ends
from service.evaluators.text.trimming import LEAST_KEPT, NEXT_SENTENCE
from service.refinement.writing import end_at

NEAR_THE_END = 0.8
"""The share of a text's tokens from which on it may land."""
NEVER_PROSE = frozenset(("code_tests", "json_schema"))
"""Evaluators that show that a text is none."""

_LOOKED_AT = 1_000
"""Characters before the end of a text in which a sentence may end."""
_NOT_PROSE = ("{", "[", "<", "`")
_NO_END = re.compile(r"[:,;(\u2013\u2014-]\Z|(?:\A|\n)#[^\n]*\Z")
"""The end of a line that leads to the next: a heading, or half a sentence."""
_ITEM = re.compile(r"(?m)^[^\S\n]*(?:[-*+\u2022]|\d{1,3}[.)])[^\S\n]+\S[^\n]*+(?=\n)")
_PAIRS = (("“", "”"), ("«", "»"), ("「", "」"), ("『", "』"), ("(", ")"), ("[", "]"))


class Rules:
    """The rules that a text has to keep while it lands.

    >>> Rules([Length(unit="words", min=2)]).hold("Salt water.")
    True
    """

    def __init__(self, evaluators: Sequence[Evaluator]) -> None:
        verifiers = [evaluator for evaluator in evaluators if evaluator.authority == "verifier"]
        self._checked = [verifier for verifier in verifiers if isinstance(verifier, Verifier)]
        self._all_checked = len(self._checked) == len(verifiers)

    def hold(self, text: str) -> bool:
        """Whether every rule holds."""
        return self._can_check(text) and all(score == 1.0 for score in self._scores(text))

    def hold_as_well(self, text: str, other: str) -> bool:
        """Whether no verifier gives the text a lower score than the other."""
        if not (self._can_check(text) and self._can_check(other)):
            return False
        return all(new >= old for new, old in zip(self._scores(text), self._scores(other), strict=True))

    def _can_check(self, text: str) -> bool:
        slow = any(verifier.in_thread for verifier in self._checked)
        return self._all_checked and not slow and sum(verifier.cost(text) for verifier in self._checked) <= LOOP_COST

    def _scores(self, text: str) -> Sequence[float]:
        checks = [verifier.check(text) for verifier in self._checked]
        return [sum(check.score for check in found) / len(found) for found in checks]


class Landing:
    """A watcher that lands one text."""

    finish_reason: FinishReason = "landed"

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._text = ""
        self._from: int | None = None

    def feed(self, piece: str, share: float) -> int | None:
        self._text += piece
        if self._from is None and share >= NEAR_THE_END:
            self._from = len(self._text)
        if self._from is None or not _is_prose(self._text):
            return None
        for end in find_ends(self._text, self._from):
            if self._rules.hold(self._text[:end]):
                return end
            self._from = end + 1
        return None

    def trim(self, completion: Completion) -> Completion:
        """The text without its last sentence, if that is unfinished and no rule likes it less; else as it is."""
        text = completion.text
        if completion.finish_reason not in ("length", "budget") or not _is_prose(text):
            return completion
        ends = find_ends(text, int(LEAST_KEPT * len(text)), is_whole=True)
        if not ends or not self._rules.hold_as_well(text[: ends[-1]], text):
            return completion
        return end_at(ends[-1], completion, "landed")


def find_ends(text: str, start: int, *, is_whole: bool = False) -> list[int]:
    """Where sentences and items of lists end in the text, from ``start`` on, except within quotation marks, brackets or
    code.

    is_whole: the text has come to its end, where a sentence may end too. Else it has to go on after one, because only
    then is it known that a full stop ended it.

    >>> find_ends("Salt. Dr. Wu swims. He", 0)
    [5, 19]
    """
    tail = max(0, min(start, len(text) - _LOOKED_AT))
    tail = max(text.rfind("\n", 0, tail), text.rfind(" ", 0, tail)) + 1
    looked_at = text[tail:]
    items = (match.end() for match in _ITEM.finditer(looked_at))
    ends = sorted({tail + end for end in (*sentence_ends(looked_at + NEXT_SENTENCE), *items)})
    last = len(text) if is_whole else len(text) - 1
    return [end for end in ends if start <= end <= last and not text[end : end + 1].strip() and _is_end(text[:end])]


def _is_end(text: str) -> bool:
    if _NO_END.search(text) or text.count("```") % 2 or text.count('"') % 2:
        return False
    return all(text.count(left) <= text.count(right) for left, right in _PAIRS)


def _is_prose(text: str) -> bool:
    return not text.lstrip().startswith(_NOT_PROSE)
